"""The nodes that the registry names: what is read, who is left out, which rules are left."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from cgw_hooks.core import registry_value
from cgw_hooks.core.node_config import NodeConfig, Registry, RemoteNode
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.core.parse.known_nodes import add_known
from cgw_hooks.core.registry_value import Keys
from cgw_hooks.core.registry_view import View
from cgw_hooks.core.rules.return_path.former_nodes import removals
from cgw_hooks.core.rules.table import static_rules
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.state.known_nodes import KnownNodes
from cgw_hooks.host.state.state import State
from cgw_hooks.node.config_in_force import config_in_force
from tests.unit.builders import CLUSTER, is_one_line

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

KEYS = Keys("/cgw")
CONFIG = """
[node]
name = "node1"
[[guest-network]]
bridge = "guestbr0"
subnet = "10.5.5.0/24"
node-address = "10.5.5.251"
gateway-address = "10.5.5.254"
internode-devices = ["eth1"]
return-path = "steer"
"""


def with_registry(text: str) -> NodeConfig:
    """The config of a node that has a registry."""
    return parse_config(text)._replace(registry=Registry(()))


STEERED = with_registry(CONFIG)
REPLICATES = with_registry(CONFIG.replace('"steer"', '"full-nat"'))._replace(replicates=True)


def node(name: str, *addresses: str, mac: str = "") -> RemoteNode:
    """A node; its MAC address follows from its name."""
    own = mac or f"02:00:00:00:00:{sum(name.encode()) % 256:02x}"
    return RemoteNode(name, tuple(map(ip_address, addresses)), (), (own,))


NODE2, NODE3 = node("node2", "10.5.5.252"), node("node3", "10.5.5.253")


def added(*nodes: RemoteNode, config: NodeConfig = STEERED) -> tuple[list[str], list[str]]:
    """The names of the remote nodes, and the errors."""
    found, errors = add_known(config, nodes)
    assert all(is_one_line(str(error)) for error in errors)
    return [each.name for each in found.remote_nodes], [str(error) for error in errors]


def test_the_rules_do_not_depend_on_who_was_there_first() -> None:
    one, other = (add_known(STEERED, nodes)[0] for nodes in ([NODE2, NODE3], [NODE3, NODE2]))
    assert static_rules(one) == static_rules(other) != static_rules(STEERED)


def test_this_node_is_no_other_node() -> None:
    assert added(node("node1", "10.5.5.251")) == ([], [])


def test_without_steering_no_node_matters() -> None:
    assert added(NODE2, node("evil", "10.5.5.252"), config=CLUSTER) == ([], [])


def test_what_the_config_says_of_a_node_replaces_what_the_registry_says() -> None:
    table = '[[remote-node]]\nname = "node2"\nnode-address = "10.5.5.77"\n'
    config = with_registry(CONFIG + table)
    assert add_known(config, [NODE2, NODE3])[0].remote_nodes == (*config.remote_nodes, NODE3)


def test_of_two_nodes_that_look_alike_the_first_one_counts() -> None:
    twins = [node("twin", "10.5.5.252"), node("twin2", "10.5.5.77", mac=NODE2.bridge_macs[0])]
    names, errors = added(NODE2, *twins)
    assert names == ["node2"]
    assert ["the last bits of 10.5.5.252 are those of node2" in e for e in errors] == [True, False]
    assert "is the MAC address of node2" in errors[1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("192.0.2.7", "no node address in the guest networks"),
        ("10.5.5.254", "no address of a single node"),
        ("10.5.5.255", "no address of a single node"),
        ("10.5.5.0", "no address of a single node"),
        ("10.5.5.251", "those of this node"),
    ],
)
def test_an_address_that_no_other_node_can_have_is_refused(address: str, message: str) -> None:
    names, (error,) = added(node("evil", address), NODE2)
    assert names == ["node2"]
    assert error.startswith('node "evil": ')
    assert message in error


def test_a_node_that_replicates_its_flows_needs_no_marks_and_no_mac_addresses() -> None:
    others = [NODE2._replace(bridge_macs=()), node("far", "10.5.7.252")]
    assert added(*others, config=REPLICATES)[0] == ["node2"]
    assert (
        "10.5.5.251 are those of this node"
        in added(node("evil", "10.5.5.251"), config=REPLICATES)[1][0]
    )
    names, (error,) = added(*others[:1])
    assert names == []
    assert "it has no MAC address" in error


def test_a_number_that_means_no_node_is_refused() -> None:
    config = with_registry(CONFIG.replace("10.5.5.0/24", "10.5.0.0/16"))
    names, (error,) = added(node("evil", "10.5.7.0"), config=config)
    assert names == []
    assert 'the last bits of the address of "evil" are 0' in error


def test_a_node_whose_config_has_other_networks_is_known_by_those_that_both_have() -> None:
    both = CONFIG + CONFIG[CONFIG.index("[[guest-network]]") :].replace("10.5.5", "10.6.6")
    assert added(NODE2, config=with_registry(both)) == (["node2"], [])


# -- values of the registry ----------------------------------------------------------------------


def value(**members: Any) -> str:
    """A good value, with some members replaced."""
    return json.dumps({**json.loads(registry_value.addresses_value(NODE2)), **members})


def test_addresses_can_be_read_as_they_were_written() -> None:
    full = RemoteNode(
        "node2",
        (ip_address("10.5.5.252"), ip_address("fd00:5::252")),
        (ip_address("192.0.2.12"),),
        ("02:63:0a:05:05:fc", "02:63:0a:06:06:fc"),
    )
    assert registry_value.addresses("node2", registry_value.addresses_value(full)) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "[]",
        "[" * 100_000,
        value(version=2),
        value(**{"node-addresses": []}),
        value(**{"node-addresses": "10.5.5.252"}),
        value(**{"node-addresses": [7]}),
        value(**{"node-addresses": ["127.0.0.1"]}),
        value(**{"node-addresses": ["10.5.5.252 }"]}),
        value(**{"uplink-addresses": ["0.0.0.0"]}),
        value(**{"uplink-addresses": ["10.0.0.0/8"]}),
        value(**{"uplink-addresses": None}),
        value(**{"bridge-macs": [2]}),
        value(**{"bridge-macs": ["ff:ff:ff:ff:ff:ff"]}),
        value(**{"bridge-macs": ["02:00:00:00:00:01 drop"]}),
        value(**{"bridge-macs": ["02:00:00:00:00:01"] * 65}),
    ],
)
def test_addresses_that_cannot_be_used_are_an_error_of_their_node(text: str) -> None:
    with pytest.raises(RegistryError) as caught:
        registry_value.addresses("node2", text)
    assert is_one_line(str(caught.value))
    assert str(caught.value).startswith('node "node2": ')


# -- the view ------------------------------------------------------------------------------------


def view_of(*nodes: str) -> View:
    """The view of node1; the keys were written in this order."""
    made = View(KEYS, "node1")
    made.replace(9, [(KEYS.addresses + n, "{}", r, r) for r, n in enumerate(nodes, start=1)], "a")
    return made


def nodes_of(view: View) -> list[str]:
    return [entry.node for entry in view.addresses()]


def test_the_oldest_addresses_come_first() -> None:
    view = view_of("node3", "node2")
    assert nodes_of(view) == ["node3", "node2"]
    view.apply(10, [(KEYS.addresses + "node3", "new", 1, 10)])
    assert nodes_of(view) == ["node3", "node2"]
    view.apply(11, [(KEYS.addresses + "node3", None, 0, 11)])
    assert nodes_of(view) == ["node2"]


def test_an_older_event_does_not_bring_a_forgotten_node_back() -> None:
    view = view_of("node2")
    view.apply(9, [(KEYS.addresses + "node2", None, 12, 12)])  # by this node
    view.apply(11, [(KEYS.addresses + "node2", "{}", 1, 11)])
    assert nodes_of(view) == []


def test_addresses_that_etcd_has_lost_stay_until_they_are_forgotten() -> None:
    view = view_of("node1", "node2", "node3")
    view.replace(3, [(KEYS.addresses + "node3", "{}", 2, 2)], "b")
    assert nodes_of(view) == ["node3", "node2"]
    assert view.has_kept
    view.forget_kept()
    assert nodes_of(view) == ["node3"]
    assert view.own_addresses() == ""


def test_the_copy_on_the_disk_has_them() -> None:
    again = View(KEYS, "node1")
    again.replace(9, view_of("node3", "node2").all())
    assert nodes_of(again) == ["node3", "node2"]


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "x" * 200])
def test_a_key_that_names_no_node_is_one_that_nobody_knows(name: str) -> None:
    assert view_of(name).unknown == {KEYS.addresses + name}


# -- the file ------------------------------------------------------------------------------------


def test_the_file_can_be_read_as_it_was_written(tmp_path: Path) -> None:
    file = KnownNodes(str(tmp_path))
    assert (file.is_there, file.read()) == (False, ())
    file.write([NODE3, NODE2])
    assert file.is_there
    assert file.read() == (NODE3, NODE2)
    assert file.read() is file.read()
    file.write([NODE2])
    assert file.read() == (NODE2,)
    file.remove()
    file.remove()
    assert (file.is_there, file.read()) == (False, ())


@pytest.mark.parametrize("text", ["", "{", "7", "[7]", "null", '[["node2", [7], [], []]]', "[[]]"])
def test_a_damaged_file_names_no_node(tmp_path: Path, text: str) -> None:
    file = KnownNodes(str(tmp_path))
    file.write([NODE2])
    (path,) = tmp_path.glob("*/*")
    path.write_text(text)
    assert file.read() == ()


def test_only_a_config_with_a_registry_follows_the_file(tmp_path: Path) -> None:
    KnownNodes(str(tmp_path)).write([NODE2])
    state = State(str(tmp_path))
    assert config_in_force(STEERED, state).remote_nodes == (NODE2,)
    alone = STEERED._replace(registry=None)
    assert config_in_force(alone, state) is alone
    full_nat = CLUSTER._replace(registry=Registry(()))
    assert config_in_force(full_nat, state) is full_nat


# -- what former nodes leave in the tables -------------------------------------------------------


def objects_of(config: NodeConfig, kind: str) -> set[tuple[str, str]]:
    """The chains or sets that the kernel has of a config."""
    lines = [line.split() for line in static_rules(config)]
    return {(f"{w[2]} {w[3]}", w[4]) for w in lines if w[:2] == ["add", kind]}


def test_the_chains_and_sets_of_a_former_node_are_deleted_and_no_others() -> None:
    both, one = (add_known(STEERED, nodes)[0] for nodes in ([NODE2, NODE3], [NODE2]))
    foreign = {("ip cgw", "entered"), ("ip other", "entered0_fd000000"), ("ip cgw", "mine_fd")}
    chains = objects_of(both, "chain") | foreign
    text = removals(static_rules(one), chains, objects_of(both, "set"))
    stems = ["came_by", "entered", "hand_to", "learned", "return_to"]
    of_node3 = [f"{stem}0_fd000000" for stem in stems]
    assert text.splitlines() == [
        *(f"flush chain ip cgw {name}" for name in of_node3),
        *(f"delete chain ip cgw {name}" for name in of_node3),
        *(f"delete set ip cgw {name}0_fd000000" for name in ("known", "reused")),
    ]
    assert removals(static_rules(both), chains, objects_of(both, "set")) == ""


def test_nothing_is_deleted_in_a_table_that_is_not_needed() -> None:
    chains = objects_of(add_known(STEERED, [NODE2])[0], "chain")
    assert removals(static_rules(CLUSTER), chains, ()) == ""

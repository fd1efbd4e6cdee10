"""Nodes that steer know each other by the registry; none has a [[remote-node]] table."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from tests.lab import network
from tests.lab.network import GATEWAY_ADDRESS, NodeAddresses
from tests.libvirt.conftest import SUITES
from tests.libvirt.waiting import eventually
from tests.netns.cluster import uplink
from tests.netns.node import PYTHON, Node
from tests.registry.cluster import RegistryCluster, is_fine
from tests.registry.steering import (
    CLIENT,
    FOURTH,
    MEMBERS,
    addresses,
    known,
    stays,
    steering_cluster,
    traces,
    until_known,
)

pytestmark = pytest.mark.registry

PREFIX = "/cgw/v1/addresses/"
#: Exit code of RegistryError.
REFUSES = 9


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryCluster]:
    """Three nodes with agents, and a fourth that may join."""
    with steering_cluster(tmp_path_factory.mktemp("cluster"), SUITES[0]) as made:
        yield made


@pytest.fixture
def made(built: RegistryCluster) -> Iterator[RegistryCluster]:
    """The same. After the test all works again, and the three nodes know each other alone."""
    until_known(built, *MEMBERS)
    yield built
    built.mend_etcd()
    for number in MEMBERS:
        if number not in built.agents:
            built.start_agent(number)
    if FOURTH in built.agents:
        built.kill_agent(FOURTH)
    built.nodes[FOURTH].cgw("node", "down", check=False)
    for name in names_of_nodes(built) - {f"node{number}" for number in MEMBERS}:
        built.nodes[1].cgw("registry", "forget", "--for-good", name)
    for node in built.nodes.values():
        node.stop_all_guests()
    until_known(built, *MEMBERS)
    assert eventually(lambda: built.keys() == {}), built.keys()


def names_of_nodes(made: RegistryCluster) -> set[str]:
    """The nodes whose addresses are in the registry."""
    keys = made.etcd.etcdctl("get", "--prefix", PREFIX, "--keys-only").stdout.split()
    return {key.removeprefix(PREFIX) for key in keys}


def sees_its_client(made: RegistryCluster, name: str, *entries: int) -> bool:
    """Whether a guest answers the client through these nodes, and sees the client's address."""
    port = 2200 + int(name.removeprefix("web"))
    return all(
        made.client.asks(uplink(entry, family), port, protocol) == f"{name} saw {CLIENT[family]}"
        for entry in entries
        for family in (4, 6)
        for protocol in ("tcp", "udp")
    )


def start(made: RegistryCluster, *names: str) -> None:
    """Start guests, and wait until they are open at the three nodes."""
    for name in names:
        made.guest(name).start()
    for name in names:
        assert eventually(partial(sees_its_client, made, name, *MEMBERS)), name


def test_each_guest_sees_its_client_through_each_node(made: RegistryCluster) -> None:
    start(made, "web1", "web2", "web3")
    assert names_of_nodes(made) == {"node1", "node2", "node3"}
    for number in MEMBERS:
        assert "remote-node" not in made.nodes[number].config_file.read_text()
        assert is_fine(made.nodes[number])


def test_a_node_that_joins_is_steered_to_until_it_is_forgotten(made: RegistryCluster) -> None:
    start(made, "web1")
    before = {number: traces(made.nodes[number]) for number in MEMBERS}
    with made.connecting(2201, *MEMBERS) as connections:
        made.nodes[FOURTH].cgw("node", "up")
        made.start_agent(FOURTH)
        until_known(made, *MEMBERS, FOURTH)
        assert eventually(partial(sees_its_client, made, "web1", FOURTH))
        made.kill_agent(FOURTH)
        assert stays(made.nodes[1], traces(made.nodes[1])), "silence is no news"
        assert sees_its_client(made, "web1", FOURTH)
        made.nodes[2].cgw("registry", "forget", "--for-good", f"node{FOURTH}")
        until_known(made, *MEMBERS)
    assert connections.made > 0
    assert connections.failed == []
    for number in MEMBERS:
        assert eventually(partial(is_as, made.nodes[number], before[number])), number
    assert sees_its_client(made, "web1", *MEMBERS)


def is_as(node: Node, before: dict[str, str]) -> bool:
    return traces(node) == before


def test_nothing_changes_while_etcd_and_the_agents_are_silent(made: RegistryCluster) -> None:
    start(made, "web1")
    before = {number: traces(made.nodes[number]) for number in MEMBERS}
    made.etcd.kill()
    made.kill_agent(2)
    made.kill_agent(3)
    made.start_agent(3)  # it hears nothing, and keeps what the file says
    for number in MEMBERS:
        assert stays(made.nodes[number], before[number]), number
    assert sees_its_client(made, "web1", *MEMBERS)


def test_a_hook_without_agent_knows_the_nodes(made: RegistryCluster) -> None:
    made.kill_agent(2)
    node = made.nodes[2]
    node.namespace.run(["nft", "flush", "ruleset"])
    made.guest("web2").start()
    rules = node.ruleset()
    assert all(f"ether saddr {NodeAddresses(n).bridge_mac}" in rules for n in (1, 3))
    made.start_agent(2)
    assert eventually(partial(sees_its_client, made, "web2", *MEMBERS))


def test_a_node_that_boots_while_etcd_is_silent_knows_the_nodes(made: RegistryCluster) -> None:
    start(made, "web2")
    node = made.nodes[1]
    node.cgw("registry", "export")  # it writes the copy on the disk
    made.kill_agent(1)
    made.etcd.kill()
    node.cgw("node", "down")
    assert known(node) == []
    shutil.rmtree(node.runtime)
    node.namespace.run(["nft", "flush", "ruleset"])
    node.cgw("node", "up")
    made.start_agent(1)
    until_known(made, *MEMBERS)
    assert eventually(partial(sees_its_client, made, "web2", *MEMBERS))


def test_addresses_are_exported_and_imported(made: RegistryCluster) -> None:
    exported = made.nodes[1].cgw("registry", "export").stdout
    before = value_of(made, "node3")
    made.kill_agent(3)
    made.nodes[1].cgw("registry", "forget", "--for-good", "node3")
    until_known(made, 1, 2)
    assert names_of_nodes(made) == {"node1", "node2"}
    said = made.nodes[1].cgw("registry", "import", "-", given=exported).stdout
    assert said == "1 entries written\n"
    assert value_of(made, "node3") == before != ""


def test_a_call_that_still_had_the_former_nodes_is_corrected(made: RegistryCluster) -> None:
    """It has read them before they changed, and writes its rules after."""
    start(made, "web1")
    node = made.nodes[1]
    program = (
        "import sys; from cgw_hooks.commands.this_node import publisher\n"
        "made = publisher(); print('ready', flush=True); sys.stdin.readline()\n"
        "with made.state.locked(): made.restore()\n"
    )
    late = subprocess.Popen(
        [*node.namespace.enter_command(), str(PYTHON), "-c", program], env=node.environment(),
        cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert late.stdout
    assert late.stdout.readline() == "ready\n"
    made.nodes[FOURTH].cgw("node", "up")
    made.start_agent(FOURTH)
    until_known(made, *MEMBERS, FOURTH)
    assert eventually(partial(sees_its_client, made, "web1", FOURTH))
    late.communicate("go\n", timeout=300)
    assert late.returncode == 0
    assert eventually(partial(sees_its_client, made, "web1", FOURTH))
    assert eventually(partial(is_fine, node)), node.cgw("status", check=False).stderr


def test_a_node_that_only_the_registry_names_can_be_taken_over(made: RegistryCluster) -> None:
    start(made, "web1", "web2")
    before = traces(made.nodes[1])
    own = value_of(made, "node1")
    dead = made.nodes[3].namespace
    made.kill_agent(3)
    network.unplug(dead)
    try:
        made.nodes[1].cgw("node", "takeover", "node3")
        for name in ("web1", "web2"):
            assert eventually(partial(sees_its_client, made, name, *MEMBERS)), name
        # A node says nothing of addresses that it only stands in for: also not a new agent.
        made.kill_agent(1)
        made.start_agent(1)
        assert stays(made.nodes[2], traces(made.nodes[2]), seconds=5.0)
        assert value_of(made, "node1") == own
        made.nodes[1].cgw("node", "handback", "node3")
    finally:
        network.plug_in(dead)
    made.start_agent(3)
    assert eventually(partial(sees_its_client, made, "web2", *MEMBERS))
    assert eventually(partial(is_as, made.nodes[1], before))


def test_a_node_that_another_one_stands_in_for_stays_known(made: RegistryCluster) -> None:
    start(made, "web1", "web3")
    before = traces(made.nodes[2])
    made.kill_agent(3)
    dead = made.nodes[3].namespace
    network.unplug(dead)
    try:
        # A cluster manager tells each node that is left, and may be faster than the takeover.
        said = made.nodes[2].cgw("registry", "forget", "node3").stdout
        assert said.startswith("node3: 1 guests forgotten; its addresses stay known")
        made.nodes[1].cgw("registry", "forget", "node3")
        made.nodes[1].cgw("node", "takeover", "node3")
        assert eventually(partial(sees_its_client, made, "web1", 3))
        made.nodes[1].cgw("registry", "forget", "node3")
        assert traces(made.nodes[2])["routes"] == before["routes"]

        presence = ["get", "/cgw/v1/nodes/node1", "--print-value-only"]
        assert eventually(lambda: '"node3"' in made.etcd.etcdctl(*presence).stdout)
        for number, who in {1: "this node stands", 2: 'node "node1" stands'}.items():
            refused = made.nodes[number].cgw(
                "registry", "forget", "--for-good", "node3", check=False
            )
            assert refused.returncode == REFUSES
            assert refused.stderr.startswith(f'cgw: node "node3": {who} in for it; run')
            assert refused.stderr.endswith("cgw node handback node3\n")
        with made.connecting(2201, 3) as connections:
            assert eventually(lambda: connections.made > 0)
            made.etcd.etcdctl("del", f"{PREFIX}node3")
            assert eventually(lambda: "node3" in names_of_nodes(made))
            until_known(made, 1, others=[2, 3])
            until_known(made, 2, others=[1, 3])
        assert connections.failed == []

        made.nodes[1].cgw("node", "handback", "node3")
        assert eventually(lambda: '"node3"' not in made.etcd.etcdctl(*presence).stdout)
        made.nodes[2].cgw("registry", "forget", "--for-good", "node3")
        until_known(made, 1, others=[2])
        until_known(made, 2, others=[1])
    finally:
        network.plug_in(dead)
        made.guest("web3").stop("shutdown")
    made.start_agent(3)
    until_known(made, *MEMBERS)


def test_addresses_are_given_back_of_a_node_that_nobody_knows_any_more(
    made: RegistryCluster,
) -> None:
    node = made.nodes[1]
    made.kill_agent(3)
    dead = made.nodes[3].namespace
    network.unplug(dead)
    try:
        node.cgw("node", "takeover", "node3")
        made.kill_agent(1)
        made.etcd.etcdctl("del", f"{PREFIX}node3")
        others = node.runtime / "nodes/nodes.json"
        others.write_text("[]")
        said = node.cgw("node", "handback", "node3").stdout
        assert f"removed {NodeAddresses(3).uplink} from" in said
        assert NodeAddresses(3).uplink not in node.namespace.run(["ip", "address"]).stdout
    finally:
        network.plug_in(dead)
    made.start_agent(1)
    made.start_agent(3)
    until_known(made, *MEMBERS)


def value_of(made: RegistryCluster, name: str) -> str:
    """What the registry says of a node's addresses."""
    return made.etcd.etcdctl("get", f"{PREFIX}{name}", "--print-value-only").stdout


def value(**members: object) -> str:
    """Good addresses of a node that is none, with some members replaced."""
    good = {
        "node-addresses": ["10.5.5.77", "fd00:5::77"],
        "uplink-addresses": ["192.168.122.77"],
        "bridge-macs": ["02:00:00:00:05:77"],
    }
    return json.dumps({"version": 1, **good, **members})


def at(*found: str) -> str:
    """Addresses of a node at other places."""
    return value(**{"node-addresses": found})


#: What a foe may write, and what each of the three nodes says about it.
HOSTILE = {
    "no JSON": ("{", "cannot be used"),
    "of another version": (value(version=2), "cannot be used"),
    "deep": ("[" * 100_000, "cannot be used"),
    "rule as an address": (at("10.5.5.77 } ; flush ruleset"), "cannot be used"),
    "rule as a MAC address": (
        value(**{"bridge-macs": ["02:00:00:00:05:77 drop"]}), "cannot be used",
    ),
    "no MAC address": (value(**{"bridge-macs": []}), "it has no MAC address"),
    "text for a list": (value(**{"bridge-macs": "02:00:00:00:05:77"}), "are no lists"),
    "more than a node can have": (
        at(*(f"10.5.5.{n}" for n in range(1, 80))), "names more than 64 addresses",
    ),
    "outside": (at("192.0.2.77"), "no node address in the guest networks"),
    "gateway address": (at(GATEWAY_ADDRESS), "is no address of a single node"),
    "broadcast": (at("10.5.5.255"), "is no address of a single node"),
    "address of node2": (at(NodeAddresses(2).guest_network), "the last bits of 10.5.5.252"),
    "number of node2": (at("fd00:5::1:252"), "the last bits of fd00:5::1:252"),
    "MAC address of node2": (
        value(**{"bridge-macs": [NodeAddresses(2).bridge_mac]}), "is the MAC address of",
    ),
}  # fmt: skip


def test_hostile_addresses_are_said_and_harm_no_node(made: RegistryCluster) -> None:
    start(made, "web1")
    before = {number: traces(made.nodes[number]) for number in MEMBERS}
    for what, (text, complaint) in HOSTILE.items():
        made.etcd.etcdctl("put", f"{PREFIX}evil", given=text)
        for number in MEMBERS:
            assert eventually(partial(says, made.nodes[number], complaint)), (what, number)
            found = traces(made.nodes[number])
            assert {**found, "nodes": ""} == {**before[number], "nodes": ""}, (what, number)
        assert sees_its_client(made, "web1", *MEMBERS), what
    made.nodes[3].cgw("registry", "forget", "--for-good", "evil")
    for number in MEMBERS:
        assert eventually(partial(is_fine, made.nodes[number]))
        assert eventually(partial(is_as, made.nodes[number], before[number])), number


def says(node: Node, complaint: str) -> bool:
    """Whether `cgw status` says this of the node that is none."""
    lines = node.cgw("status", check=False).stderr.splitlines()
    return any('node "evil"' in line and complaint in line for line in lines)


def test_addresses_that_somebody_damages_are_written_again(made: RegistryCluster) -> None:
    start(made, "web1")
    before = {number: traces(made.nodes[number]) for number in MEMBERS}
    good = value_of(made, "node2")
    made.etcd.etcdctl("put", f"{PREFIX}node2", given="{")
    assert eventually(lambda: value_of(made, "node2") == good)
    assert made.etcd.etcdctl("del", f"{PREFIX}node2")
    assert eventually(partial(lambda: names_of_nodes(made) == {"node1", "node2", "node3"}))
    for number in MEMBERS:
        assert eventually(partial(is_as, made.nodes[number], before[number])), number
    assert sees_its_client(made, "web1", *MEMBERS)


def test_damaged_addresses_of_a_node_that_is_silent_stay_as_they_were(
    made: RegistryCluster,
) -> None:
    start(made, "web1")
    before = traces(made.nodes[1])
    made.kill_agent(2)
    made.etcd.etcdctl("put", f"{PREFIX}node2", given="{")
    said = partial(made.nodes[1].cgw, "status", check=False)
    assert eventually(lambda: 'node "node2": its addresses in the registry' in said().stderr)
    assert traces(made.nodes[1]) == before
    assert known(made.nodes[1]) == addresses(2, 3)
    assert sees_its_client(made, "web1", *MEMBERS)

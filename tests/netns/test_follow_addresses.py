"""Guests whose annotation names no address are followed: leases, and the neighbour table."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab.domain import guest_mac
from tests.lab.network import GATEWAY_ADDRESS, GUEST_BRIDGE, guest_address, guest_address6
from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE
from tests.netns.conftest import NodeMaker
from tests.netns.guest import DONE, Guest
from tests.netns.node import CHECKOUT, PYTHON, Node
from tests.netns.own_mounts import OwnMounts, own_mounts
from tests.netns.test_leases import WEB1, WEB2, Network

pytestmark = pytest.mark.netns

PORT = 2202
LONGEST_WAIT = 120.0
_FOLLOW = """
import json, sys
sys.path.insert(0, sys.argv[1])
from cgw_hooks.commands.this_node import publisher
from cgw_hooks.node.refresh import follow_addresses
found = follow_addresses(publisher())
print(json.dumps([
    [record.guest.name for record in found.published],
    [str(problem) for problem in found.problems],
    [str(key) for key in found.to_refresh],
]))
"""
NOTHING: tuple[list[str], list[str], list[str]] = ([], [], [])


def follow(node: Node, mounts: OwnMounts | None = None) -> tuple[list[str], ...]:
    """Who was published anew; problems; whose definition must be read."""
    enter = mounts.enter_command() if mounts else ()
    done = subprocess.run(
        [*node.namespace.enter_command(), *enter, str(PYTHON), "-c", _FOLLOW, str(CHECKOUT)],
        env=node.environment(), cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout))


def changes_nothing(node: Node, act: Callable[[], object]) -> None:
    before = node.state.version(), node.namespace.run(["nft", "-a", "list", "ruleset"]).stdout
    act()
    after = node.state.version(), node.namespace.run(["nft", "-a", "list", "ruleset"]).stdout
    assert before == after


def on_plain_bridge(node: Node, *, octet: int = WEB1, publish: str = f"{PORT}:22") -> Guest:
    """A guest that serves and says nothing of its address."""
    return node.guest(f"web{octet}", publish, serves="22/tcp", octet=octet, addresses="")


def is_seen(guest: Guest, address: str = "") -> None:
    """The guest sends something, as each guest does that boots."""
    address = address or guest_address(guest.octet)
    guest.asks("10.5.5.251", 9)
    shown = guest.node.namespace.run(["ip", "neigh", "show", address]).stdout
    assert guest_mac(guest.octet) in shown


def test_a_guest_is_published_once_it_is_seen(client: Asker, make_node: NodeMaker) -> None:
    node = make_node(FULL_NAT)
    guest = on_plain_bridge(node)
    guest.start()
    assert client.asks(NODE[4], PORT) == REFUSED
    row = node.status()[guest.name]
    assert (row["state"], row["problem"]["message"]) == (
        "no address yet", "its address was not seen yet"
    )  # fmt: skip
    changes_nothing(node, lambda: follow(node))
    is_seen(guest)
    assert node.status()[guest.name]["problem"]["message"] == "it now has the address 10.5.5.11"
    assert follow(node) == ([guest.name], [], [])
    assert client.asks(NODE[4], PORT) == f"{guest.name} saw 10.5.5.251"
    assert node.states() == {guest.name: "published"}
    changes_nothing(node, lambda: follow(node))


def test_a_guest_that_is_known_when_it_starts(client: Asker, node: Node) -> None:
    guest = on_plain_bridge(node)
    is_seen(guest)
    guest.start()
    assert client.asks(NODE[4], PORT) == f"{guest.name} saw {CLIENT[4]}"
    assert follow(node) == NOTHING


def test_a_silent_guest_stays_published(client: Asker, node: Node) -> None:
    """The kernel forgets neighbours; a hook call, as after a restart of libvirt, finds none."""
    guest = on_plain_bridge(node)
    is_seen(guest)
    guest.start()
    node.namespace.ip("neigh flush all")
    assert node.states() == {guest.name: "published"}
    changes_nothing(node, lambda: follow(node))
    assert guest.hook("reconnect") == DONE
    assert client.asks(NODE[4], PORT) == f"{guest.name} saw {CLIENT[4]}"


def test_an_address_that_another_guest_has_now(client: Asker, node: Node) -> None:
    guest, other = on_plain_bridge(node), on_plain_bridge(node, octet=WEB2, publish="99:99")
    is_seen(guest)
    guest.start()
    assert client.asks(NODE[4], PORT) == f"{guest.name} saw {CLIENT[4]}"
    guest.wire.namespace.ip("link set eth0 down")
    other.wire.namespace.ip(f"address add {guest_address(WEB1)}/24 dev eth0")
    other.wire.serve(guest_address(WEB1), "22/tcp")
    node.namespace.ip("neigh flush all")
    assert client.asks(NODE[4], PORT) == f"{other.name} saw {CLIENT[4]}"
    row = node.status()[guest.name]
    assert row["problem"]["message"] == "another guest has its address now"
    assert follow(node) == ([guest.name], [], [])
    assert client.asks(NODE[4], PORT) == REFUSED


def test_a_guest_that_changed_its_address(client: Asker, node: Node) -> None:
    """The old address is asked for first: a guest may have two."""
    guest = on_plain_bridge(node)
    is_seen(guest)
    guest.start()
    node.namespace.sysctl({f"net/ipv4/neigh/{GUEST_BRIDGE}/delay_first_probe_time": "1"})
    new = "10.5.5.77"
    guest.wire.namespace.ip(f"address add {new}/24 dev eth0")
    guest.wire.serve(new, "22/tcp")
    node.namespace.ip(
        f"neigh replace 10.5.5.11 dev {GUEST_BRIDGE} lladdr {guest_mac(WEB1)} nud stale"
    )
    node.namespace.ip(
        f"neigh replace {new} dev {GUEST_BRIDGE} lladdr {guest_mac(WEB1)} nud reachable"
    )
    assert follow(node) == NOTHING
    assert client.asks(NODE[4], PORT) == f"{guest.name} saw {CLIENT[4]}"
    guest.wire.namespace.ip(
        f"address delete 10.5.5.11/24 dev eth0\naddress replace {new}/24 dev eth0\n"
        f"route replace default via {GATEWAY_ADDRESS}\n"
    )
    node.namespace.ip(
        f"neigh replace 10.5.5.11 dev {GUEST_BRIDGE} lladdr {guest_mac(WEB1)} nud stale"
    )
    node.namespace.ip(
        f"neigh replace {new} dev {GUEST_BRIDGE} lladdr {guest_mac(WEB1)} nud reachable"
    )
    deadline = time.monotonic() + LONGEST_WAIT
    while follow(node) == NOTHING:
        assert time.monotonic() < deadline
    assert client.asks(NODE[4], PORT) == f"{guest.name} saw {CLIENT[4]}"
    assert node.status()[guest.name]["target_address"] == new


@pytest.mark.parametrize(
    ("claimed", "what"),
    [
        (NODE[4], "the node's own address"),
        (CLIENT[4], "a host on another link"),
        ("8.8.8.8", "a host behind a router"),
        ("10.5.5.255", "a broadcast address"),
        ("127.0.0.1", "the node's loopback address"),
    ],
)
def test_an_address_that_a_guest_only_claims(
    client: Asker, node: Node, claimed: str, what: str
) -> None:
    assert what
    guest = on_plain_bridge(node)
    guest.start()
    node.namespace.ip("route add default via 192.168.122.100")
    node.namespace.ip(
        f"neigh replace {claimed} dev {GUEST_BRIDGE} lladdr {guest_mac(WEB1)} nud reachable"
    )
    changes_nothing(node, lambda: follow(node))
    assert client.asks(NODE[4], PORT) == REFUSED
    assert node.states() == {guest.name: "no address yet"}
    is_seen(guest)
    assert follow(node) == ([guest.name], [], [])
    assert client.asks(NODE[4], PORT) == f"{guest.name} saw {CLIENT[4]}"


@pytest.mark.parametrize("claimed", [GATEWAY_ADDRESS, "10.5.5.251", "10.5.5.0"])
def test_a_reserved_address_that_a_guest_claims(
    client: Asker, make_node: NodeMaker, claimed: str
) -> None:
    node = make_node(FULL_NAT)
    guest = on_plain_bridge(node)
    guest.start()
    node.namespace.ip(
        f"neigh replace {claimed} dev {GUEST_BRIDGE} lladdr {guest_mac(WEB1)} nud reachable"
    )
    changes_nothing(node, lambda: follow(node))
    assert client.asks(NODE[4], PORT) == REFUSED


def test_a_guest_of_the_guest_network_on_another_bridge(
    client: Asker, make_node: NodeMaker
) -> None:
    """Another guest would be reached."""
    node = make_node(FULL_NAT)
    guest = on_plain_bridge(node)
    xml = guest.xml.replace(f"bridge='{GUEST_BRIDGE}'", "bridge='br9'").replace(
        f'bridge="{GUEST_BRIDGE}"', 'bridge="br9"'
    )
    assert xml != guest.xml
    node.namespace.ip("link add br9 type bridge\nlink set br9 up")
    node.namespace.ip(f"neigh replace 10.5.5.12 dev br9 lladdr {guest_mac(WEB1)} nud reachable")
    guest.start(xml=xml)
    changes_nothing(node, lambda: follow(node))
    assert client.asks(NODE[4], PORT) == REFUSED
    guest.stop(xml=xml)


def test_a_second_family_needs_the_definition(node: Node) -> None:
    guest = on_plain_bridge(node)
    is_seen(guest)
    guest.start()
    address = guest_address6(WEB1)
    node.namespace.ip(
        f"neigh replace {address} dev {GUEST_BRIDGE} lladdr {guest_mac(WEB1)} nud reachable"
    )
    assert follow(node) == ([], [], [guest.key])
    assert guest.hook("reconnect") == DONE
    assert {row["family"] for row in node.status_rows()} == {4, 6}
    assert follow(node) == NOTHING
    node.namespace.ip("neigh flush all")
    assert guest.hook("reconnect") == DONE
    assert len(node.status_rows()) == 2


def test_an_address_of_another_family_than_the_ports(client: Asker, node: Node) -> None:
    """It is neither an error nor an address."""
    guest = node.guest("web1", f"{NODE[4]}:{PORT}:22", serves="22/tcp", octet=WEB1, addresses="")
    address = guest_address6(WEB1)
    node.namespace.ip(
        f"neigh replace {address} dev {GUEST_BRIDGE} lladdr {guest_mac(WEB1)} nud reachable"
    )
    guest.start()
    assert node.states() == {"web1": "no address yet"}
    assert follow(node) == NOTHING
    is_seen(guest)
    assert follow(node) == (["web1"], [], [])
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    assert follow(node) == NOTHING


@pytest.fixture
def network(node: Node) -> Iterator[Network]:
    with own_mounts(node) as mounts:
        yield Network(node, mounts)


def test_a_lease_is_followed(client: Asker, network: Network) -> None:
    node, mounts = network.node, network.mounts
    network.hook("started")
    changes_nothing(node, lambda: follow(node, mounts))
    network.leases((WEB1, WEB1, 3600))
    assert follow(node, mounts) == (["web1"], [], [])
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    network.leases((WEB1, WEB1, 7200))  # renewed
    changes_nothing(node, lambda: follow(node, mounts))
    network.guest.wire.namespace.ip(
        f"address delete {guest_address(WEB1)}/24 dev eth0\n"
        f"address add {guest_address(WEB2)}/24 dev eth0\n"
        f"route replace default via {GATEWAY_ADDRESS}\n"
    )
    network.guest.wire.serve(guest_address(WEB2), "22/tcp")
    network.leases((WEB2, WEB1, 3600))
    assert follow(node, mounts) == (["web1"], [], [])
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    network.leases((WEB2, WEB1, -1))
    assert follow(node, mounts) == (["web1"], [], [])
    assert client.asks(NODE[4], PORT) == REFUSED
    assert network.status() == (1, "no address yet", "no lease of the guest is known")

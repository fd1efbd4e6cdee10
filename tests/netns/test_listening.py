"""Where a published port answers, and to whom: ranges, listening addresses, sources, elsewhere."""

import pytest

from tests.lab.network import guest_address, guest_address6
from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import CLIENT, GATEWAY, NODE, NODE_AMONG_GUESTS, THIRD
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node
from tests.netns.parameters import configs, families, protocols

pytestmark = pytest.mark.netns

#: A second address of the node.
OTHER = {4: "192.168.122.12", 6: "fd00:122::12"}


@families
def test_a_range_is_published_with_its_offset(client: Asker, node: Node, family: int) -> None:
    web1 = node.guest(
        "web1", "8000-8009:80", serves="79/tcp 80/tcp 85/tcp 89/tcp 90/tcp", family=family
    )
    web1.start()
    for port in (8000, 8005, 8009):
        assert client.asks(NODE[family], port) == f"web1 saw {CLIENT[family]}"
    for outside in (7999, 8010):
        assert client.asks(NODE[family], outside) == REFUSED


@protocols
def test_each_port_of_a_range_goes_to_the_guest_port_of_its_own(
    client: Asker, node: Node, protocol: str
) -> None:
    web1 = node.guest("web1", f"8000-8002:80/{protocol}", serves=f"80/{protocol}")
    web1.wire.serve(guest_address(11), f"81/{protocol}", name="second")
    web1.wire.serve(guest_address(11), f"82/{protocol}", name="third")
    web1.start()
    answers = [client.asks(NODE[4], port, protocol).split()[0] for port in (8000, 8001, 8002)]
    assert answers == ["web1", "second", "third"]


@families
@configs
def test_a_listening_address_answers_there_and_nowhere_else(
    client: Asker, make_node: NodeMaker, config: str, family: int
) -> None:
    node = make_node(config)
    node.add_address(OTHER[family])
    web1 = node.guest("web1", f"[{NODE[family]}]:2202:22", serves="22/tcp", family=family)
    web1.start()
    assert client.asks(NODE[family], 2202).startswith("web1 saw")
    assert node.asks(NODE[family], 2202).startswith("web1 saw")
    assert client.asks(OTHER[family], 2202) == REFUSED
    assert node.asks(OTHER[family], 2202) == REFUSED


@families
def test_one_port_at_two_addresses_may_be_two_guests(
    client: Asker, node: Node, family: int
) -> None:
    node.add_address(OTHER[family])
    for name, address in (("web1", NODE[family]), ("web2", OTHER[family])):
        node.guest(name, f"[{address}]:2202:22", serves="22/tcp", family=family).start()
    assert client.asks(NODE[family], 2202) == f"web1 saw {CLIENT[family]}"
    assert client.asks(OTHER[family], 2202) == f"web2 saw {CLIENT[family]}"


@families
@configs
def test_any_local_address_includes_those_among_the_guests(
    make_node: NodeMaker, config: str, family: int
) -> None:
    node = make_node(config)
    web1 = node.guest("web1", "2202:22", serves="22/tcp", family=family)
    web2 = node.guest("web2", serves="80/tcp")
    web1.start()
    for address in (GATEWAY[family], NODE_AMONG_GUESTS[family]):
        assert web2.asks(address, 2202).startswith("web1 saw")


@families
def test_a_listening_address_elsewhere_lies_dormant_until_it_comes_here(
    client: Asker, node: Node, third: Asker, family: int
) -> None:
    """Packets on their way through the node, to whoever has the address, are not intercepted."""
    third.serve(THIRD[family], "2202/tcp")
    web1 = node.guest("web1", f"[{THIRD[family]}]:2202:22", serves="22/tcp", family=family)
    web2 = node.guest("web2", serves="80/tcp")
    web1.start()
    assert node.cgw("status").returncode == 0
    assert node.states() == {"web1": "dormant"}
    assert client.asks(NODE[family], 2202) == REFUSED
    assert web2.asks(THIRD[family], 2202).startswith("third saw")

    third.namespace.ip(f"address flush dev eth0 to {THIRD[family]}")
    node.add_address(THIRD[family])
    client.namespace.ip("neigh flush all")
    assert client.asks(THIRD[family], 2202) == f"web1 saw {CLIENT[family]}"
    assert node.states() == {"web1": "published"}


@configs
@pytest.mark.parametrize(
    "spec",
    [
        "2202:22 from 192.168.122.100",
        "2202:22 from 192.168.122.96/28",
        "2202:22 from 10.9.0.0/16, 192.168.122.100 203.0.113.0/24",
        "192.168.122.11:2202:22 from 203.0.113.0/24 192.168.122.96/28",
        "2202:22 from fd00:122::100",
        "2202:22 from fd00:9::/64,fd00:122::100/120",
        "[fd00:122::11]:2202:22 from fd00:122::100/120",
    ],
)
def test_source_limits_who_comes_in(
    client: Asker, third: Asker, make_node: NodeMaker, config: str, spec: str
) -> None:
    """It is the client's own address that counts, also where FULL-NAT hides it from the guest."""
    family = 6 if "fd00" in spec else 4
    node = make_node(config)
    node.guest("web1", spec, serves="22/tcp", family=family).start()
    seen = NODE_AMONG_GUESTS[family] if config else CLIENT[family]
    assert client.asks(NODE[family], 2202) == f"web1 saw {seen}"
    assert third.asks(NODE[family], 2202) == REFUSED


@families
@configs
@protocols
def test_connections_through_the_node_to_the_same_port_elsewhere_are_untouched(
    third: Asker, make_node: NodeMaker, config: str, protocol: str, family: int
) -> None:
    node = make_node(config)
    third.serve(THIRD[family], f"2202/{protocol}")
    node.guest("web1", f"2202:22/{protocol}", serves=f"22/{protocol}", family=family).start()
    web2 = node.guest("web2", serves="80/tcp")
    assert web2.asks(THIRD[family], 2202, protocol).startswith("third saw")
    assert node.asks(THIRD[family], 2202, protocol).startswith("third saw")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_stays_the_nodes_own(node: Node, address: str) -> None:
    """The kernel would take no answer to it from another device."""
    both = f"{guest_address(11)},{guest_address6(11)}"
    node.guest("web1", "2202:22", serves="22/tcp", addresses=both).start()
    assert node.asks(address, 2202) == REFUSED
    node.serve(address, "2202/tcp")
    assert node.asks(address, 2202) == f"node saw {address}"


def test_a_guest_of_both_families_is_published_in_both(client: Asker, node: Node) -> None:
    both = f"{guest_address(11)},{guest_address6(11)}"
    web1 = node.guest("web1", "2202:22", serves="22/tcp", addresses=both)
    web1.wire.serve(guest_address6(11), "22/tcp")
    web1.start()
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert client.asks(NODE[6], 2202) == f"web1 saw {CLIENT[6]}"
    web1.stop()
    assert client.asks(NODE[4], 2202) == REFUSED
    assert client.asks(NODE[6], 2202) == REFUSED

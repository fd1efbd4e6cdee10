"""Guests' own connections: out with the uplink's address, among themselves untouched."""

import pytest

from tests.lab.network import guest_address, guest_address6
from tests.netns.asker import Asker
from tests.netns.configs import FULL_NAT, MASQUERADE, NODE, NONE, THIRD
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node
from tests.netns.parameters import bridgings, families, protocols

pytestmark = pytest.mark.netns

GUEST = {4: guest_address, 6: guest_address6}


def _published(node: Node) -> None:
    """The static rules are in place from the first published port on."""
    node.guest("published", "2202:22", octet=50).start()


@families
@protocols
@pytest.mark.parametrize("config", [FULL_NAT, MASQUERADE], ids=["uplink-address", "masquerade"])
def test_guests_go_out_with_the_uplink_address(
    third: Asker, make_node: NodeMaker, config: str, protocol: str, family: int
) -> None:
    node = make_node(config)
    third.serve(THIRD[family], f"80/{protocol}")
    web1 = node.guest("web1", serves="22/tcp")
    _published(node)
    assert web1.asks(THIRD[family], 80, protocol) == f"third saw {NODE[family]}"


@families
def test_the_uplink_address_is_the_configured_one(
    third: Asker, make_node: NodeMaker, family: int
) -> None:
    """A node has several; masquerade would choose one of them."""
    other = {4: "192.168.122.12", 6: "fd00:122::12"}
    node = make_node(FULL_NAT.replace(f'"{NODE[family]}"', f'"{other[family]}"'))
    node.add_address(other[family])
    third.serve(THIRD[family], "80/tcp")
    web1 = node.guest("web1", serves="22/tcp")
    _published(node)
    assert web1.asks(THIRD[family], 80) == f"third saw {other[family]}"


@families
def test_without_a_guest_network_guests_go_out_as_they_are(
    third: Asker, make_node: NodeMaker, family: int
) -> None:
    node = make_node(NONE)
    third.serve(THIRD[family], "80/tcp")
    web1 = node.guest("web1", serves="22/tcp")
    _published(node)
    assert web1.asks(THIRD[family], 80) == f"third saw {GUEST[family](11)}"


@families
@protocols
@bridgings
def test_among_themselves_guests_see_each_other(
    make_node: NodeMaker, bridging: bool, protocol: str, family: int
) -> None:
    """Also where bridged packets meet the rules, and on the port that is published."""
    node = make_node(FULL_NAT)
    node.pass_bridged_packets_to_rules(bridging)
    web1 = node.guest("web1", f"22:22/{protocol}", serves=f"22/{protocol}", family=family)
    web2 = node.guest("web2", serves="80/tcp")
    web1.start()
    assert web2.asks(GUEST[family](11), 22, protocol) == f"web1 saw {GUEST[family](12)}"


@families
@bridgings
def test_the_node_reaches_guests_as_itself(
    make_node: NodeMaker, bridging: bool, family: int
) -> None:
    node = make_node(FULL_NAT)
    node.pass_bridged_packets_to_rules(bridging)
    web1 = node.guest("web1", "2202:22", serves="22/tcp", family=family)
    web1.start()
    assert node.asks(GUEST[family](11), 22).startswith("web1 saw")


@families
def test_what_comes_in_untranslated_keeps_its_source(
    client: Asker, make_node: NodeMaker, family: int
) -> None:
    """A client with a route to the guests needs no published port, and is not rewritten."""
    node = make_node(FULL_NAT)
    web1 = node.guest("web1", "2202:22", serves="22/tcp", family=family)
    web1.start()
    subnet = {4: "10.5.5.0/24", 6: "fd00:5::/64"}[family]
    client.namespace.ip(f"route add {subnet} via {NODE[family]}")
    source = {4: "192.168.122.100", 6: "fd00:122::100"}[family]
    assert client.asks(GUEST[family](11), 22) == f"web1 saw {source}"

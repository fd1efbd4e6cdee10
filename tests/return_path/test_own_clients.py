"""Nodes and guests as clients: whatever the return path, they stay FULL-NAT."""

import pytest

from tests.lab.network import GATEWAY_ADDRESS, GATEWAY_ADDRESS6
from tests.netns.asker import Asker
from tests.netns.cluster import inside, uplink
from tests.return_path.cluster import (
    CLIENT,
    FAR,
    GUESTS,
    NODES,
    PROTOCOLS,
    WHO,
    Cluster,
    listening_port,
)
from tests.return_path.moving_guest import MovingGuest
from tests.return_path.way import Move, Way

pytestmark = pytest.mark.return_path

SERVED = 80
_OUTSIDE = {"client": CLIENT, "far": FAR}
#: web2 is asked. It asks itself in a test of its own.
OTHERS = ("web1", "web3", *(f"node{n}" for n in NODES))


def test_nodes_and_guests_reach_a_published_port_of_every_node(
    way: Way, placed: MovingGuest
) -> None:
    """Of their own node, and of another one."""
    asked = [(who, protocol) for who in OTHERS for protocol in PROTOCOLS]
    expected = dict.fromkeys(asked, f"{placed.name} saw {way.seen_full_nat}")
    assert {pair: way.asks(*pair) for pair in asked} == expected


# With br_netfilter, a bridge gives no packet back to the port that it came from, so a guest cannot
# reach itself through its own node (tests/netns/test_packet_table.py shows both).
@pytest.mark.parametrize("made", [False], ids=["routed"], indirect=True)
def test_a_guest_reaches_its_own_published_port(way: Way, placed: MovingGuest) -> None:
    expected = dict.fromkeys(PROTOCOLS, f"{placed.name} saw {way.seen_full_nat}")
    assert {protocol: way.asks(placed.name, protocol) for protocol in PROTOCOLS} == expected


@pytest.mark.parametrize("who", ["web1", "web3"])
def test_a_guest_reaches_a_published_port_at_its_gateway(
    placed: MovingGuest, made: Cluster, who: str, family: int
) -> None:
    made.guests[who].meet_gateway()
    gateway = GATEWAY_ADDRESS if family == 4 else GATEWAY_ADDRESS6
    seen = f"{placed.name} saw {inside(made.guests[who].place, family)}"
    port = listening_port(placed.name, WHO)
    assert answers(made.asker(who), gateway, port) == dict.fromkeys(PROTOCOLS, seen)


def answers(asker: Asker, address: str, port: int) -> dict[str, str]:
    """What is said over each protocol."""
    return {protocol: asker.asks(address, port, protocol) for protocol in PROTOCOLS}


def test_nodes_and_guests_reach_a_guest_directly(
    placed: MovingGuest, made: Cluster, family: int
) -> None:
    """As neighbours: nothing is translated."""
    for who in OTHERS:
        is_guest = who in made.guests
        source = made.guests[who].address(family) if is_guest else inside(int(who[-1]), family)
        said = answers(made.asker(who), placed.address(family), WHO)
        assert (who, said) == (who, dict.fromkeys(PROTOCOLS, f"{placed.name} saw {source}"))


@pytest.fixture(scope="package")
def serving(built: Cluster) -> Cluster:
    """The cluster, whose clients outside serve a port of their own."""
    for who, addresses in _OUTSIDE.items():
        built.asker(who).serve("::", f"{SERVED}/tcp {SERVED}/udp")
        for address in addresses.values():
            built.asker(who).serve(address, f"{SERVED}/sctp")
    return built


@pytest.mark.usefixtures("serving")
def test_every_guest_goes_out_as_its_node(made: Cluster, placed: MovingGuest, family: int) -> None:
    for name in GUESTS:
        guest = made.guests[name]
        guest.meet_gateway()
        for who, addresses in _OUTSIDE.items():
            said = answers(guest.wire, addresses[family], SERVED)
            seen = f"{who} saw {uplink(guest.place, family)}"
            assert (name, said) == (name, dict.fromkeys(PROTOCOLS, seen))
    assert placed.name in GUESTS


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.usefixtures("serving")
def test_a_guest_that_has_just_moved_goes_out(
    made: Cluster, move: Move, protocol: str, family: int
) -> None:
    """It has the old node's MAC for its gateway: one of the two nodes lets it out."""
    guest = made.guests["web2"]
    guest.move(move.target)
    said = guest.wire.asks(CLIENT[family], SERVED, protocol)
    assert said in {f"client saw {uplink(node, family)}" for node in move}

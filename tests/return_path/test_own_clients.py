"""Nodes and guests as clients: whatever the return path, they stay FULL-NAT."""

import pytest

from tests.lab.network import GATEWAY_ADDRESS, GATEWAY_ADDRESS6
from tests.netns.cluster import inside, uplink
from tests.return_path.cluster import CLIENT, FAR, GUESTS, NODES, WHO, Cluster, listening_port
from tests.return_path.moving_guest import MovingGuest
from tests.return_path.way import Move, Way

pytestmark = pytest.mark.return_path

SERVED = 80
_OUTSIDE = {"client": CLIENT, "far": FAR}
INSIDE = [*GUESTS, *(f"node{n}" for n in NODES)]


@pytest.mark.parametrize("who", INSIDE)
def test_nodes_and_guests_reach_a_published_port_of_every_node(
    way: Way, placed: MovingGuest, who: str, protocol: str
) -> None:
    """Their own node, another one; the guest also its own port."""
    assert way.asks(who, protocol) == f"{placed.name} saw {way.seen_full_nat}"


@pytest.mark.parametrize("who", GUESTS)
def test_a_guest_reaches_a_published_port_at_its_gateway(
    placed: MovingGuest, made: Cluster, who: str, protocol: str, family: int
) -> None:
    made.guests[who].meet_gateway()
    gateway = GATEWAY_ADDRESS if family == 4 else GATEWAY_ADDRESS6
    said = made.asker(who).asks(gateway, listening_port(placed.name, WHO), protocol)
    assert said == f"{placed.name} saw {inside(made.guests[who].place, family)}"


@pytest.mark.parametrize("who", INSIDE)
def test_nodes_and_guests_reach_a_guest_directly(
    placed: MovingGuest, made: Cluster, who: str, protocol: str, family: int
) -> None:
    """As neighbours: nothing is translated."""
    is_guest = who in made.guests
    source = made.guests[who].address(family) if is_guest else inside(int(who[-1]), family)
    said = made.asker(who).asks(placed.address(family), WHO, protocol)
    assert said == f"{placed.name} saw {source}"


@pytest.fixture(scope="session")
def serving(built: Cluster) -> Cluster:
    """The cluster, whose clients outside serve a port of their own."""
    for who, addresses in _OUTSIDE.items():
        built.asker(who).serve("::", f"{SERVED}/tcp {SERVED}/udp")
        for address in addresses.values():
            built.asker(who).serve(address, f"{SERVED}/sctp")
    return built


@pytest.mark.parametrize("who", _OUTSIDE)
@pytest.mark.usefixtures("serving")
def test_a_guest_goes_out_as_its_node(
    placed: MovingGuest, who: str, protocol: str, family: int
) -> None:
    said = placed.wire.asks(_OUTSIDE[who][family], SERVED, protocol)
    assert said == f"{who} saw {uplink(placed.place, family)}"


@pytest.mark.usefixtures("serving")
def test_a_guest_that_has_just_moved_goes_out(
    made: Cluster, move: Move, protocol: str, family: int
) -> None:
    """It has the old node's MAC for its gateway: one of the two nodes lets it out."""
    guest = made.guests["web2"]
    guest.move(move.target)
    said = guest.wire.asks(CLIENT[family], SERVED, protocol)
    assert said in {f"client saw {uplink(node, family)}" for node in move}

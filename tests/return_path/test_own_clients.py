"""Nodes and guests as clients: whatever the return path, they stay FULL-NAT."""

import pytest

from tests.lab.network import GATEWAY_ADDRESS, GATEWAY_ADDRESS6
from tests.return_path.cluster import (
    CLIENT,
    FAR,
    GUESTS,
    NODES,
    WHO,
    Cluster,
    inside,
    listening_port,
    uplink,
)
from tests.return_path.parameters import entries, families, places

pytestmark = pytest.mark.return_path

GUEST = "web2"
PROTOCOLS = ("tcp", "udp", "sctp")
SERVED = 80
protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


@families
@protocols
@places
@entries
@pytest.mark.parametrize("node", NODES)
def test_a_node_reaches_a_published_port_of_every_node(  # noqa: PLR0913 - what is combined
    made: Cluster, node: int, entry: int, place: int, protocol: str, family: int
) -> None:
    made.place(GUEST, place)
    asked = made.nodes[node].asks(uplink(entry, family), listening_port(GUEST, WHO), protocol)
    assert asked == f"{GUEST} saw {inside(entry, family)}"


@families
@protocols
@places
@entries
@pytest.mark.parametrize("who", GUESTS)
def test_a_guest_reaches_a_published_port_of_every_node(  # noqa: PLR0913 - what is combined
    made: Cluster, who: str, entry: int, place: int, protocol: str, family: int
) -> None:
    """Also its own port."""
    made.place(GUEST, place)
    asked = made.asker(who).asks(uplink(entry, family), listening_port(GUEST, WHO), protocol)
    assert asked == f"{GUEST} saw {inside(entry, family)}"


@families
@protocols
@places
@pytest.mark.parametrize("who", GUESTS)
def test_a_guest_reaches_a_published_port_at_its_gateway(
    made: Cluster, who: str, place: int, protocol: str, family: int
) -> None:
    made.place(GUEST, place)
    made.guests[who].meet_gateway()
    gateway = GATEWAY_ADDRESS if family == 4 else GATEWAY_ADDRESS6
    asked = made.asker(who).asks(gateway, listening_port(GUEST, WHO), protocol)
    assert asked == f"{GUEST} saw {inside(made.guests[who].place, family)}"


@families
@protocols
@places
@pytest.mark.parametrize("who", [*GUESTS, *(f"node{n}" for n in NODES)])
def test_guests_and_nodes_reach_a_guest_directly(
    made: Cluster, who: str, place: int, protocol: str, family: int
) -> None:
    """As neighbours: nothing is translated."""
    guest = made.place(GUEST, place)
    source = (
        inside(int(who[-1]), family) if who.startswith("node") else made.guests[who].address(family)
    )
    asked = made.asker(who).asks(guest.address(family), WHO, protocol)
    assert asked == f"{GUEST} saw {source}"


@pytest.fixture(scope="session")
def served(built: Cluster) -> Cluster:
    """The cluster, whose clients serve ports of their own."""
    for asker, address in ((built.client, CLIENT), (built.far, FAR)):
        asker.serve("::", f"{SERVED}/tcp {SERVED}/udp")
        for family in (4, 6):
            asker.serve(address[family], f"{SERVED}/sctp")
    return built


@families
@protocols
@places
@pytest.mark.parametrize("who", ["client", "far"])
def test_a_guest_goes_out_as_its_node(  # noqa: PLR0913 - what is combined
    served: Cluster, made: Cluster, who: str, place: int, protocol: str, family: int
) -> None:
    guest = made.place(GUEST, place)
    address = {"client": CLIENT, "far": FAR}[who][family]
    asked = guest.wire.asks(address, SERVED, protocol)
    assert asked == f"{who} saw {uplink(place, family)}"
    assert served is made


@families
@protocols
@pytest.mark.parametrize(("source", "target"), [(2, 3), (2, 1), (1, 3), (3, 1)])
def test_a_guest_that_has_just_moved_goes_out(  # noqa: PLR0913 - what is combined
    served: Cluster, made: Cluster, source: int, target: int, protocol: str, family: int
) -> None:
    """It has the old node's MAC for its gateway: one of the two nodes lets it out."""
    guest = made.place(GUEST, source)
    guest.move(target)
    asked = guest.wire.asks(CLIENT[family], SERVED, protocol)
    assert asked in {f"client saw {uplink(node, family)}" for node in (source, target)}
    assert served is made

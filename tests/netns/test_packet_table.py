"""The packet table of a cluster: who asks what; who answers, whom the guest sees, by which uplinks.

Every node publishes every guest: an answer that reaches the asker was translated back by the very
node that it entered, and the captures on the uplinks show that no other took part.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.lab.network import CLIENT_ADDRESS, CLIENT_ADDRESS6
from tests.netns.asker import PATIENCE_FOR_NOTHING, TIMED_OUT
from tests.netns.cluster import (
    HOMES,
    PROTOCOLS,
    SERVED,
    Cluster,
    all_up,
    cluster,
    guest_at,
    guest_number,
    inside,
    uplink,
)
from tests.netns.configs import GATEWAY
from tests.netns.parameters import bridgings, families, protocols

pytestmark = pytest.mark.netns

NODES = (1, 2, 3)
CLIENT = {4: CLIENT_ADDRESS, 6: CLIENT_ADDRESS6}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, with the client serving as the outside world too."""
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        for guest in made.guests.values():
            guest.reflect_on_port()  # or br_netfilter hands no guest its own packet back
        all_up(made)
        for family in (4, 6):
            made.client.serve(CLIENT[family], " ".join(f"80/{p}" for p in PROTOCOLS))
        yield made


class Row(NamedTuple):
    """`who` asks for `guest` by `entry`; the guest sees `seen`, packets leave by these uplinks."""

    who: str
    entry: str
    guest: str
    seen: str
    uplinks: frozenset[int] = frozenset()

    def __str__(self) -> str:
        """Spell the row as the test's name."""
        return f"{self.who}-{self.entry}-{self.guest}"


def place(name: str, family: int) -> str:
    """The address of "node2", "node2-inside", "gateway" or "web3"."""
    if name == "gateway":
        return GATEWAY[family]
    if name.startswith("web"):
        return guest_at(name, family)
    index = int(name.removeprefix("node").removesuffix("-inside"))
    return inside(index, family) if name.endswith("-inside") else uplink(index, family)


def from_client() -> Iterator[Row]:
    """In by any node, to a guest on any node: FULL-NAT by the entry node."""
    for entry in NODES:
        for guest in HOMES:
            yield Row("client", f"node{entry}", guest, f"node{entry}-inside", frozenset({entry}))


def from_guests() -> Iterator[Row]:
    """By the gateway: the guest's own node, whatever else has that address. Itself too."""
    for who, home in HOMES.items():
        other = home % 3 + 1
        for guest in HOMES:
            yield Row(who, "gateway", guest, f"node{home}-inside")
            both = frozenset({home, other})
            yield Row(who, f"node{other}", guest, f"node{other}-inside", both)


def from_nodes() -> Iterator[Row]:
    for node in NODES:
        other = node % 3 + 1
        for guest in HOMES:
            both = frozenset({node, other})
            yield Row(f"node{node}", f"node{node}", guest, f"node{node}-inside")
            yield Row(f"node{node}", f"node{other}", guest, f"node{other}-inside", both)


@pytest.mark.parametrize("row", [*from_client(), *from_guests(), *from_nodes()], ids=str)
@families
@protocols
@bridgings
def test_a_published_port(
    up: Cluster, bridging: bool, protocol: str, family: int, row: Row
) -> None:
    up.pass_bridged_packets_to_rules(bridging)
    up.uplinks_used(protocol)
    port = 2200 + guest_number(row.guest)
    answer = up.asker(row.who).asks(place(row.entry, family), port, protocol)
    assert answer == f"{row.guest} saw {place(row.seen, family)}"
    assert up.uplinks_used(protocol) == row.uplinks


@pytest.mark.parametrize("who", HOMES)
@pytest.mark.parametrize("guest", HOMES)
@families
@protocols
@bridgings
def test_guests_see_each_other_as_they_are(  # noqa: PLR0913, PLR0917 - the table's columns
    up: Cluster, bridging: bool, protocol: str, family: int, guest: str, who: str
) -> None:
    """Also those bridged through a third node whose rules see them."""
    up.pass_bridged_packets_to_rules(bridging)
    up.uplinks_used(protocol)
    answer = up.asker(who).asks(guest_at(guest, family), SERVED, protocol)
    assert answer == f"{guest} saw {guest_at(who, family)}"
    assert up.uplinks_used(protocol) == set()


@pytest.mark.parametrize("who", HOMES)
@families
@protocols
@bridgings
def test_a_guest_goes_out_by_its_own_node(
    up: Cluster, bridging: bool, protocol: str, family: int, who: str
) -> None:
    up.pass_bridged_packets_to_rules(bridging)
    up.uplinks_used(protocol)
    answer = up.asker(who).asks(CLIENT[family], 80, protocol)
    assert answer == f"client saw {uplink(HOMES[who], family)}"
    assert up.uplinks_used(protocol) == {HOMES[who]}


@families
def test_by_another_nodes_own_address_among_the_guests(up: Cluster, family: int) -> None:
    """Routed by that node, and back out of the port where it came in; the guest sees that node."""
    up.pass_bridged_packets_to_rules(False)
    answer = up.asker("web1").asks(inside(2, family), 2204)
    assert answer == f"web4 saw {inside(2, family)}"


@families
def test_so_with_br_netfilter_only_to_another_port_of_its_bridge(up: Cluster, family: int) -> None:
    """The kernel's limit: it bridges such a packet then, and never back to where it came from."""
    up.pass_bridged_packets_to_rules(True)
    answers = [up.asker("web1").asks(inside(2, family), port) for port in (2202, 2203)]
    assert answers == [f"web2 saw {inside(2, family)}", f"web3 saw {inside(2, family)}"]
    back = up.asker("web1").asks(inside(2, family), 2204, patience=PATIENCE_FOR_NOTHING)
    assert back == TIMED_OUT

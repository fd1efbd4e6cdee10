"""Every entry node and every place of the guest: who answers, and which client it sees."""

import socket

import pytest

from tests.lab.reply import Outcome, Reply
from tests.netns.asker import spoken
from tests.return_path.cluster import FAR_MTU, GUESTS, NODES, PROTOCOLS, SILENT, WHO, Cluster
from tests.return_path.moving_guest import MovingGuest
from tests.return_path.streams import ENOUGH, transfer
from tests.return_path.way import Way

pytestmark = pytest.mark.return_path

CLIENTS = ("client", "far")
#: Three fragments each way.
BIG = "x" * 3500
_PATIENCE = 60.0
_FAR_TRIES, _FAR_PATIENCE = 60, 1.0


def test_a_guest_answers_and_sees_its_client(way: Way, placed: MovingGuest) -> None:
    asked = [(who, protocol) for who in CLIENTS for protocol in PROTOCOLS]
    expected = {(who, protocol): f"{placed.name} saw {way.seen(who)}" for who, protocol in asked}
    assert {pair: way.asks(*pair) for pair in asked} == expected


def test_fragments_pass_both_ways(way: Way, placed: MovingGuest) -> None:
    for who in CLIENTS:
        placed.forget_path_mtu()
        reply = ask_in_fragments(way, who)
        assert (who, spoken(reply)) == (who, f"{placed.name} saw {way.seen(who)}")
        assert reply.payload == BIG


def ask_in_fragments(way: Way, who: str) -> Reply:
    """Ask with a datagram of several fragments, which comes back.

    The far client's first answer is lost with IPv6: by this the guest hears of the path MTU.
    """
    tries, patience = (_FAR_TRIES, _FAR_PATIENCE) if who == "far" else (1, _PATIENCE)
    for _ in range(tries):
        asker = way.made.asker(who)
        reply = asker.udp(way.entry_address, way.port(WHO), BIG, timeout=patience)
        if reply.answered:
            break
    return reply


@pytest.mark.usefixtures("placed")
def test_a_closed_port_of_a_guest_refuses(way: Way) -> None:
    """A reset for TCP, an ICMP error (port unreachable) for UDP: both from the guest."""
    for who in CLIENTS:
        for protocol in ("tcp", "udp"):
            reply = way.made.asker(who).ask(protocol, way.entry_address, way.port(SILENT))
            assert (who, protocol, reply.outcome) == (who, protocol, Outcome.REFUSED)


def test_the_path_mtu_of_a_far_client_is_found(way: Way, placed: MovingGuest) -> None:
    """The router's ICMP errors reach the guest, whose segments are too long."""
    placed.forget_path_mtu()
    connection = way.connect("far")
    segment = connection.guest.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    assert segment > FAR_MTU, "the far client has not asked for longer segments"
    with transfer(connection.guest, connection.client, enough=ENOUGH // 8):
        pass
    assert placed.path_mtu(connection.seen) == FAR_MTU


@pytest.mark.parametrize("crowded", NODES)
def test_all_guests_are_on_one_node(made: Cluster, crowded: int) -> None:
    """Then the other nodes have no guest at all, and all guests share a gateway."""
    ways = [
        Way(made, made.put(name, crowded), entry, family)
        for name in GUESTS
        for entry in NODES
        for family in (4, 6)
    ]
    for way in ways:
        assert way.asks("client") == f"{way.guest.name} saw {way.seen()}"

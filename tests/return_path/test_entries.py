"""Every entry node and every place of the guest: who answers, and which client it sees."""

import socket

import pytest

from tests.lab.reply import Outcome, Reply
from tests.netns.asker import spoken
from tests.return_path.cluster import (
    CLIENT,
    FAR,
    FAR_MTU,
    GUESTS,
    SILENT,
    TALK,
    WHO,
    Cluster,
    listening_port,
    uplink,
)
from tests.return_path.parameters import entries, families, places
from tests.return_path.sessions import connected
from tests.return_path.streams import ENOUGH, transfer

pytestmark = pytest.mark.return_path

GUEST = "web2"
CLIENTS = {"client": CLIENT, "far": FAR}
#: Three fragments each way.
BIG = "x" * 3500
_TRIES = 5
_FAR_PATIENCE = 10.0


@families
@places
@entries
def test_a_guest_answers_and_sees_its_client(
    made: Cluster, entry: int, place: int, family: int
) -> None:
    made.place(GUEST, place)
    port = listening_port(GUEST, WHO)
    for who, address in CLIENTS.items():
        seen = f"{GUEST} saw {made.seen_as(address[family], entry)}"
        for protocol in ("tcp", "udp", "sctp"):
            asked = made.asker(who).asks(uplink(entry, family), port, protocol)
            assert (who, protocol, asked) == (who, protocol, seen)


@families
@places
@entries
def test_fragments_pass_both_ways(made: Cluster, entry: int, place: int, family: int) -> None:
    made.place(GUEST, place)
    for who, address in CLIENTS.items():
        reply = ask_in_fragments(made, who, entry, family)
        assert spoken(reply) == f"{GUEST} saw {made.seen_as(address[family], entry)}"
        assert reply.payload == BIG


def ask_in_fragments(made: Cluster, who: str, entry: int, family: int) -> Reply:
    """Ask with a datagram of several fragments, which comes back.

    Of the far client, the first answer is lost with IPv6: then the guest hears of the path MTU.
    """
    made.guests[GUEST].forget_path_mtu()
    client, entry_address = made.asker(who), uplink(entry, family)
    tries, patience = (_TRIES, _FAR_PATIENCE) if who == "far" else (1, 60.0)
    for _ in range(tries):
        reply = client.udp(entry_address, listening_port(GUEST, WHO), BIG, timeout=patience)
        if reply.answered:
            break
    return reply


@families
@places
@entries
def test_a_closed_port_of_a_guest_is_refused_at_once(
    made: Cluster, entry: int, place: int, family: int
) -> None:
    """A reset for TCP, an ICMP error (port unreachable) for UDP: both from the guest."""
    made.place(GUEST, place)
    for who in CLIENTS:
        for protocol in ("tcp", "udp"):
            port = listening_port(GUEST, SILENT)
            reply = made.asker(who).ask(protocol, uplink(entry, family), port)
            assert (who, protocol, reply.outcome) == (who, protocol, Outcome.REFUSED)


@families
@places
@entries
def test_the_path_mtu_of_a_far_client_is_found(
    made: Cluster, entry: int, place: int, family: int
) -> None:
    """The router's ICMP errors reach the guest that sends the segments that are too long."""
    guest = made.place(GUEST, place)
    guest.forget_path_mtu()
    port, talker = listening_port(GUEST, TALK), made.talkers[GUEST, family]
    with connected(made.far.namespace, uplink(entry, family), port, talker) as connection:
        segment = connection.guest.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        assert segment > FAR_MTU, "the far client has not asked for longer segments"
        with transfer(connection.guest, connection.client, enough=ENOUGH // 8):
            pass
        assert guest.path_mtu(connection.seen) == FAR_MTU


@families
@entries
@pytest.mark.parametrize("guest", GUESTS)
def test_all_guests_are_on_one_node(made: Cluster, guest: str, entry: int, family: int) -> None:
    """Then the other nodes have no guest at all, and all guests share a gateway."""
    for name in GUESTS:
        made.place(name, 3)
    seen = made.seen_as(CLIENT[family], entry)
    asked = made.client.asks(uplink(entry, family), listening_port(guest, WHO))
    assert asked == f"{guest} saw {seen}"

"""A client port that is used again through another node: to the guest it may be the same peer."""

import socket
from itertools import permutations

import pytest

from tests.netns.asker import spoken
from tests.return_path.cluster import (
    CLIENT,
    FULL_NAT,
    NODES,
    TALK,
    WHO,
    Cluster,
    listening_port,
    uplink,
)
from tests.return_path.parameters import families, places
from tests.return_path.sessions import Connection, connect

pytestmark = pytest.mark.return_path

GUEST = "web2"
_SHORT = 3.0
orders = pytest.mark.parametrize("order", permutations(NODES), ids=lambda o: "".join(map(str, o)))


def close_client_first(connection: Connection) -> None:
    connection.close()


def close_guest_first(connection: Connection) -> None:
    Connection(connection.guest, connection.client, connection.seen).close()


def reset(connection: Connection) -> None:
    """Close with a reset, from the client."""
    connection.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
    connection.client.close()
    with pytest.raises(ConnectionResetError):
        connection.guest.recv(1)
    connection.guest.close()


@families
@places
@orders
@pytest.mark.parametrize("close", [close_client_first, close_guest_first, reset])
def test_a_port_is_used_again_after_the_close(
    made: Cluster, order: tuple[int, ...], place: int, family: int, close, free_port: int
) -> None:  # type: ignore[no-untyped-def]
    made.place(GUEST, place)
    port, talker = listening_port(GUEST, TALK), made.talkers[GUEST, family]
    for entry in order:
        connection = connect(
            made.client.namespace, uplink(entry, family), port, talker, source_port=free_port
        )
        assert connection.seen == made.seen_as(CLIENT[family], entry)
        connection.client_speaks()
        connection.guest_speaks()
        close(connection)


@families
@places
@orders
@pytest.mark.parametrize("protocol", ["udp", "sctp"])
def test_a_port_without_connections_is_used_through_node_after_node(
    made: Cluster, order: tuple[int, ...], place: int, family: int, protocol: str, free_port: int
) -> None:
    """And through the first one again. Each answer comes from the node that was asked."""
    made.place(GUEST, place)
    ask = made.client.udp if protocol == "udp" else made.client.sctp
    for entry in (*order, order[0]):
        reply = ask(uplink(entry, family), listening_port(GUEST, WHO), source_port=free_port)
        assert spoken(reply) == f"{GUEST} saw {made.seen_as(CLIENT[family], entry)}"


@families
@places
@orders
def test_of_two_connections_from_one_port_the_first_lives(
    made: Cluster, order: tuple[int, ...], place: int, family: int, free_port: int
) -> None:
    """With FULL-NAT both do: the guest sees two peers."""
    made.place(GUEST, place)
    port, talker = listening_port(GUEST, TALK), made.talkers[GUEST, family]
    first, *others = (uplink(entry, family) for entry in order)
    connection = connect(made.client.namespace, first, port, talker, source_port=free_port)
    try:
        for other in others:
            if made.return_path == FULL_NAT:
                second = connect(made.client.namespace, other, port, talker, source_port=free_port)
                second.client_speaks()
                second.abandon()
            else:
                try_to_connect(made, other, port, free_port)
            connection.client_speaks()
            connection.guest_speaks()
    finally:
        connection.abandon()


def try_to_connect(made: Cluster, address: str, port: int, source_port: int) -> None:
    """Connect and say something, whether it works or not: it may be refused, or get no answer."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with made.client.namespace.call(lambda: socket.socket(family)) as second:
        second.settimeout(_SHORT)
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        second.bind(("", source_port))
        try:
            second.connect((address, port))
            second.sendall(b"something".ljust(32))
            second.recv(1)
        except OSError:
            pass

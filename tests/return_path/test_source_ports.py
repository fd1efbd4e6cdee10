"""A client port that is used again through another node: to the guest it may be the same peer."""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from itertools import permutations

import pytest

from cgw_hooks.core.node_config import FULL_NAT, STEER
from tests.netns.asker import PATIENCE_FOR_NOTHING, spoken
from tests.return_path.cluster import NODES, TALK, WHO, Cluster
from tests.return_path.conftest import GUEST
from tests.return_path.moving_guest import MovingGuest
from tests.return_path.sessions import Connection
from tests.return_path.way import Move, Way

pytestmark = pytest.mark.return_path

Order = tuple[int, ...]
ORDERS = list(permutations(NODES))


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


CLOSES = [close_client_first, close_guest_first, reset]


@pytest.fixture
def ways(made: Cluster, placed: MovingGuest, family: int) -> list[list[Way]]:
    """The ways through the nodes, in every order."""
    of_nodes = {entry: Way(made, placed, entry, family) for entry in NODES}
    return [[of_nodes[entry] for entry in order] for order in ORDERS]


@pytest.mark.parametrize("close", CLOSES)
def test_a_port_is_used_again_after_the_close(
    ways: list[list[Way]], close: Callable[[Connection], None], free_ports: Iterator[int]
) -> None:
    for order in ways:
        port = next(free_ports)
        for way in order:
            connection = way.connect(source_port=port)
            connection.guest_speaks()
            close(connection)


@pytest.fixture(params=[False, True], ids=["anew", "again"])
def before(request: pytest.FixtureRequest, made: Cluster, move: Move) -> MovingGuest:
    """The guest before its move, and where it is while the ports are used first.

    That is the target of its move, or not.
    """
    return made.put(GUEST, move.target if request.param else move.source)


@pytest.fixture(params=CLOSES)
def present(
    request: pytest.FixtureRequest, before: MovingGuest, made: Cluster, move: Move, family: int
) -> list[Connection]:
    """Connections whose client ports were used before, each of them through another node.

    The nodes still track those connections.
    """
    orders = [[Way(made, before, n, family) for n in order] for order in permutations(NODES, 2)]
    ports = [request.getfixturevalue("free_ports").__next__() for _ in orders]
    for port, (earlier, _) in zip(ports, orders, strict=True):
        connection = earlier.connect(source_port=port)
        connection.guest_speaks()
        request.param(connection)
    made.put(GUEST, move.source)
    opened = [
        later.connect(source_port=port) for port, (_, later) in zip(ports, orders, strict=True)
    ]
    if made.return_path == STEER:
        assert_clients_keep_their_ports(made, before.address(family))
    return opened


def assert_clients_keep_their_ports(made: Cluster, guest: str) -> None:
    """No node may track a steered connection under another port of its client.

    It would take the answers to a connection that really comes from that port.
    """
    destination = f" dst={ipaddress.ip_address(guest).exploded} sport="
    for node in made.nodes.values():
        for line in node.namespace.run(["cat", "/proc/net/nf_conntrack"]).stdout.splitlines():
            ports = [word.partition("=")[2] for word in line.split() if "port=" in word]
            if " tcp " in line and destination in line.partition(" dport=")[0]:
                assert ports[0] == ports[3], line


@pytest.mark.parametrize("speak", [Connection.guest_speaks, Connection.client_speaks])
def test_connections_of_ports_that_are_used_again_go_on_when_their_guest_moves(
    present: list[Connection], before: MovingGuest, move: Move, speak: Callable[[Connection], None]
) -> None:
    def speak_in_all() -> None:
        for connection in present:
            speak(connection)

    before.move(move.target, at_switch_over=speak_in_all)
    speak_in_all()
    for connection in present:
        connection.close()


@pytest.mark.parametrize("protocol", ["udp", "sctp"])
def test_a_port_is_used_again_where_nothing_is_closed(
    ways: list[list[Way]], protocol: str, free_ports: Iterator[int]
) -> None:
    """And through the first node again. Each answer comes from the node that was asked."""
    for order in ways:
        port = next(free_ports)
        for way in (*order, order[0]):
            ask = {"udp": way.made.client.udp, "sctp": way.made.client.sctp}[protocol]
            reply = ask(way.entry_address, way.port(WHO), source_port=port)
            assert spoken(reply) == f"{way.guest.name} saw {way.seen()}"


def test_of_two_connections_from_one_port_the_first_lives(
    ways: list[list[Way]], free_ports: Iterator[int]
) -> None:
    """With FULL-NAT all do, since the guest sees several peers."""
    for first, *others in ways[::2]:  # each node once as the first
        port = next(free_ports)
        connection = first.connect(source_port=port)
        for other in others:
            if other.made.return_path == FULL_NAT:
                other.connect(source_port=port)
            else:
                try_to_connect(other, port)
            connection.client_speaks()
            connection.guest_speaks()


def try_to_connect(way: Way, source_port: int) -> None:
    """Connect and say something. It may work, be refused, or get no answer."""
    kind = socket.AF_INET6 if way.family == 6 else socket.AF_INET
    with way.made.client.namespace.call(lambda: socket.socket(kind)) as second:
        second.settimeout(PATIENCE_FOR_NOTHING)
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        second.bind(("", source_port))
        try:
            second.connect((way.entry_address, way.port(TALK)))
            second.sendall(b"something".ljust(32))
            second.recv(1)
        except OSError:
            pass

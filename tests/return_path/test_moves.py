"""Connections that are open while their guest moves: all of them go on.

The guest has moved when it runs at the target and is announced; the hook of the source comes
later. Until then both nodes have the guest's record, so each test also speaks in between.
"""

from collections.abc import Callable

import pytest

from tests.lab.network import NodeAddresses
from tests.return_path.cluster import CLIENT, NODES, TALK, WHO, Cluster, listening_port, uplink
from tests.return_path.moving_guest import MovingGuest
from tests.return_path.parameters import entries, families
from tests.return_path.sessions import Connection, Exchange, connect
from tests.return_path.streams import guest_stream, transfer

pytestmark = pytest.mark.return_path

GUEST = "web2"
moves = pytest.mark.parametrize(
    ("source", "target"), [(2, 3), (2, 1), (1, 3), (3, 1)], ids=["2-3", "2-1", "1-3", "3-1"]
)
Speak = Callable[[], None]


class Talk:
    """The connections of one test, through one entry."""

    def __init__(self, made: Cluster, entry: int, family: int) -> None:
        self._made = made
        self._family = family
        self._entry = uplink(entry, family)
        self._seen = made.seen_as(CLIENT[family], entry)
        self._connections: list[Connection] = []
        self._exchanges: list[Exchange] = []

    def connection(self) -> Connection:
        """Open a TCP connection, which has spoken."""
        opened = connect(self._made.client.namespace, self._entry, *self._port())
        self._connections.append(opened)
        assert opened.seen == self._seen
        opened.client_speaks()
        return opened

    def exchange(self) -> Exchange:
        """Open a UDP exchange, which has spoken."""
        opened = Exchange(self._made.client.namespace, self._entry, *self._port())
        self._exchanges.append(opened)
        opened.client_speaks()
        assert opened.seen == self._seen
        return opened

    def _port(self) -> tuple:  # type: ignore[type-arg]
        return listening_port(GUEST, TALK), self._made.talkers[GUEST, self._family]

    def __enter__(self) -> "Talk":
        """Open connections within the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close all. No client may have heard a datagram twice, or from a wrong address."""
        for connection in self._connections:
            connection.abandon()
        for exchange in self._exchanges:
            if kind is None:
                exchange.close()
            else:
                exchange.client.close()


@pytest.fixture
def moved(made: Cluster, source: int) -> MovingGuest:
    """The guest on its source node, which is its gateway."""
    return made.place(GUEST, source)


def assert_new_connections_work(made: Cluster, family: int) -> None:
    """Through every node, at once."""
    port = listening_port(GUEST, WHO)
    for protocol in ("tcp", "udp", "sctp"):
        for node in NODES:
            asked = made.client.asks(uplink(node, family), port, protocol)
            assert asked == f"{GUEST} saw {made.seen_as(CLIENT[family], node)}", (protocol, node)


SPEAKERS = {
    "client-tcp": lambda talk: talk.connection().client_speaks,
    "guest-tcp": lambda talk: talk.connection().guest_speaks,
    "client-udp": lambda talk: talk.exchange().client_speaks,
    "guest-udp": lambda talk: talk.exchange().guest_speaks,
}


@families
@entries
@pytest.mark.parametrize("first", SPEAKERS)
@moves
def test_whoever_speaks_first_after_a_move_is_heard(  # noqa: PLR0913 - what is combined
    made: Cluster, moved: MovingGuest, source: int, target: int, first: str, entry: int,
    family: int,
) -> None:  # fmt: skip
    """There and back. Nothing else is sent after the move that could have shown the way."""
    with Talk(made, entry, family) as talk:
        speak: Speak = SPEAKERS[first](talk)

        def speak_at_once() -> None:
            assert moved.gateway_macs() == {NodeAddresses(source).bridge_mac}
            speak()

        moved.move(target, at_switch_over=speak_at_once)
        speak()
        assert_new_connections_work(made, family)
        moved.move(source, at_switch_over=speak)
        speak()


@families
@entries
@pytest.mark.parametrize("first", SPEAKERS)
@moves
def test_whoever_speaks_first_after_the_last_hook_is_heard(  # noqa: PLR0913 - what is combined
    made: Cluster, moved: MovingGuest, source: int, target: int, first: str, entry: int,
    family: int,
) -> None:  # fmt: skip
    """As above, but nobody speaks before the source's hooks have run."""
    with Talk(made, entry, family) as talk:
        speak: Speak = SPEAKERS[first](talk)
        moved.move(target)
        speak()
        moved.move(source)
        speak()
        assert_new_connections_work(made, family)


@families
@entries
@moves
def test_transfers_and_streams_go_on(
    made: Cluster, moved: MovingGuest, source: int, target: int, entry: int, family: int
) -> None:
    """A download, an upload and a guest's stream of UDP, all while the guest moves there and back."""
    with Talk(made, entry, family) as talk:
        down, up, stream = talk.connection(), talk.connection(), talk.exchange()
        with (
            transfer(down.guest, down.client) as download,
            transfer(up.client, up.guest) as upload,
            guest_stream(stream) as datagrams,
        ):
            for place in (target, source):
                moved.move(place)
                download.wait_for()
                upload.wait_for()
                datagrams.wait_for()
                assert_new_connections_work(made, family)


@families
@entries
def test_a_connection_outlives_many_moves(made: Cluster, entry: int, family: int) -> None:
    guest = made.place(GUEST, 1)
    with Talk(made, entry, family) as talk:
        pushed, asked = talk.connection(), talk.connection()
        pushed_udp, asked_udp = talk.exchange(), talk.exchange()
        for target in (2, 3, 1, 3, 2, 1):
            guest.move(target)
            for speak in (pushed.guest_speaks, pushed_udp.guest_speaks,
                          asked.client_speaks, asked_udp.client_speaks):  # fmt: skip
                speak()

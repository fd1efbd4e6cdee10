"""CT-SYNC: which node sends the answers out, and what happens when conntrackd does not work."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cgw_hooks.core.node_config import CT_SYNC
from tests.lab.namespace import Namespace
from tests.lab.status_json import read_status
from tests.libvirt.waiting import eventually
from tests.netns.asker import spoken
from tests.return_path.cluster import CLIENT, NODES, WHO, Cluster
from tests.return_path.moving_guest import MovingGuest
from tests.return_path.streams import guest_stream, transfer
from tests.return_path.uplinks import Uplinks
from tests.return_path.way import Way

pytestmark = [
    pytest.mark.return_path,
    pytest.mark.parametrize("return_path", [CT_SYNC], indirect=True),
]

ENTRY, HOME = 1, 3
#: Packets that show that a transfer has changed its way: all queues hold less.
_ENOUGH_PACKETS = 200
_LONG_TRANSFER = 200 << 20
#: Seconds. An entry node forgets an open connection after five minutes if it has not seen the last
#: acknowledgement; it must not.
_LONG = 3600


@pytest.fixture
def uplinks(made: Cluster) -> Uplinks:
    """What is sent from now on."""
    return Uplinks(made.client.namespace)


@pytest.fixture
def far(made: Cluster, family: int) -> Way:
    """The way by one node to the guest on another one, with a third one between them."""
    return Way(made, made.put("web2", HOME), ENTRY, family)


def is_sent_by(uplinks: Uplinks, node: int, way: Way) -> bool:
    """Whether a transfer's answers leave by this node from now on."""
    before = uplinks.sent(node, way.entry, way.family)
    time.sleep(0.05)
    return uplinks.sent(node, way.entry, way.family) > before + _ENOUGH_PACKETS


@pytest.mark.parametrize("kind", ["download", "upload"])
def test_answers_leave_by_the_guests_node(
    way: Way, placed: MovingGuest, place: int, uplinks: Uplinks, kind: str
) -> None:
    """With the address of the entry node, once conntrackd has brought the connection there."""
    connection = way.connect()
    ends = connection.guest, connection.client
    with transfer(*(ends if kind == "download" else reversed(ends))) as running:
        assert eventually(lambda: is_sent_by(uplinks, place, way))
        running.wait_for()
        if place != way.entry:
            before = uplinks.sent(way.entry, way.entry, way.family)
            running.wait_for()
            assert uplinks.sent(way.entry, way.entry, way.family) < before + _ENOUGH_PACKETS
    connection.client.close()
    connection.guest.close()
    assert placed.place == place


def test_a_stream_of_datagrams_leaves_by_the_guests_node(far: Way, uplinks: Uplinks) -> None:
    """Conntrack calls it assured after two seconds."""
    exchange = far.exchange()
    with guest_stream(exchange):
        assert eventually(lambda: _speaks(exchange.client_speaks) and _direct(uplinks, far))


def _speaks(speak: Callable[[], None]) -> bool:
    speak()
    return True


def _direct(uplinks: Uplinks, way: Way) -> bool:
    return uplinks.sent(HOME, way.entry, way.family) > _ENOUGH_PACKETS


def test_an_entry_node_keeps_a_connection_that_falls_silent(far: Way, made: Cluster) -> None:
    """It has not seen that the guest has received what the client said last."""
    connection = far.connect()
    time.sleep(2)  # the first second's answers go by the entry node
    connection.client_speaks()
    port = connection.client.getsockname()[1]
    for node in NODES:
        assert lifetime(made.nodes[node].namespace, port) > _LONG


def lifetime(inside: Namespace, client_port: int) -> int:
    """How many seconds a node would still track a silent TCP connection of a client's port."""
    lines = inside.run(["cat", "/proc/net/nf_conntrack"]).stdout.splitlines()
    found = [line.split() for line in lines if f" sport={client_port} " in line]
    assert len(found) == 1, found
    return int(found[0][4])


def test_a_slow_answer_to_a_syn_arrives(far: Way) -> None:
    """The first ones are lost; the one that comes seconds later finds its way as well."""
    guest = far.guest.wire.namespace
    guest.run(["nft", "-f", "-"], input=_DROP_SYN_ACK)
    timer = threading.Timer(4, lambda: guest.run(["nft", "delete", "table", "inet", "slow"]))
    timer.start()
    connection = far.connect()
    timer.join()
    connection.guest_speaks()
    assert connection.seen == CLIENT[far.family]


_DROP_SYN_ACK = """
table inet slow {
    chain output { type filter hook output priority 0;
        tcp flags & (syn | ack) == syn | ack drop
    }
}
"""


def test_nobody_tells_of_the_flows_of_another_node(far: Way, made: Cluster) -> None:
    """Or the entry node would hear outdated news of its own connections."""
    connection, exchange = far.connect(), far.exchange()
    time.sleep(3)
    for _ in range(3):
        connection.client_speaks()
        connection.guest_speaks()
        exchange.client_speaks()
        exchange.guest_speaks()
    ports = [connection.client.getsockname()[1], exchange.client.getsockname()[1]]
    for port in ports:
        told = {n: made.daemons[n].has_flow(f"sport={port} ", cache="-i") for n in NODES}
        assert told == {n: n == ENTRY for n in NODES}


# -- conntrackd fails --------------------------------------------------------------------------


@contextmanager
def failing(made: Cluster, how: str) -> Iterator[None]:
    """All daemons are killed, or hang; at the end they work again."""
    try:
        for daemon in made.daemons.values():
            daemon.kill() if how == "killed" else daemon.send_signal(signal.SIGSTOP)
        yield
    finally:
        for daemon in made.daemons.values():
            daemon.restart() if how == "killed" else daemon.send_signal(signal.SIGCONT)
        for daemon in made.daemons.values():
            before = daemon.number("Pckts recv")
            assert eventually(lambda d=daemon, b=before: d.number("Pckts recv") > b >= 0)  # type: ignore[misc]


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_all_goes_on_while_conntrackd_fails(far: Way, made: Cluster, how: str) -> None:
    """What is open, what is opened then, and what goes on when it works again; with moves."""
    down, up = far.connect(), far.connect()
    older, exchange = far.connect(), far.exchange()
    with (
        transfer(down.guest, down.client) as download,
        transfer(up.client, up.guest) as upload,
        guest_stream(far.exchange()) as datagrams,
    ):
        with failing(made, how):
            for running in (download, upload, datagrams):
                running.wait_for()
            newer, talk = far.connect(), far.exchange()
            (complaint,) = problems(made, ENTRY)
            assert complaint.startswith("it does not run" if how == "killed" else "it has not answ")
            assert far.asks("client") == f"web2 saw {CLIENT[far.family]}"
            for place in (2, ENTRY, HOME):
                far.guest.move(place)
                for session in (older, newer, exchange, talk):
                    session.guest_speaks()
                    session.client_speaks()
                for running in (download, upload, datagrams):
                    running.wait_for()
        for session in (older, newer, exchange, talk):
            session.client_speaks()
            session.guest_speaks()
    assert problems(made, ENTRY) == []


def problems(made: Cluster, node: int) -> list[str]:
    """What status says of replication."""
    said = read_status(made.nodes[node].cgw("status", "--json", check=False).stdout)
    return [p["message"] for p in said["problems"] if p["code"] == "replication"]


# -- client ports that are used again ----------------------------------------------------------


def test_short_connections_reuse_client_ports_over_nodes(made: Cluster, family: int) -> None:
    assert failures(made, family, 300) == []


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["download", "upload"])
def test_twenty_long_transfers_end_whole(far: Way, kind: str) -> None:
    for _ in range(20):
        connection = far.connect()
        ends = connection.guest, connection.client
        with transfer(*(ends if kind == "download" else reversed(ends))) as running:
            running.wait_for(_LONG_TRANSFER)
        connection.abandon()


@pytest.mark.extended
def test_a_guest_speaks_on_to_a_client_that_is_silent_for_minutes(far: Way) -> None:
    """The entry node would forget the flow after two minutes if no answer passed it any more."""
    exchange = far.exchange()
    time.sleep(3)
    exchange.client_speaks()
    with guest_stream(exchange) as datagrams:
        time.sleep(150)
        datagrams.wait_for()


@pytest.mark.extended
def test_very_many_short_connections_reuse_client_ports_over_nodes(
    made: Cluster, family: int
) -> None:
    assert failures(made, family, 9000) == []


def failures(made: Cluster, family: int, count: int) -> list[tuple[int, int, str]]:
    """Connect by one node after the other, from 100 client ports in turn; what failed."""
    placed = made.put("web2", HOME)
    ways = [Way(made, placed, entry, family) for entry in NODES]
    failed = []
    for number in range(count):
        way, port = ways[(number + number // 100) % len(ways)], 30000 + number % 100
        reply = made.client.tcp(way.entry_address, way.port(WHO), source_port=port)
        if spoken(reply) != f"web2 saw {way.seen()}":
            failed.append((number, way.entry, spoken(reply)))
    return failed

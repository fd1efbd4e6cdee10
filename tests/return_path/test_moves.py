"""Connections that are open while their guest moves: all of them go on.

From the switch-over until the source's hooks have run, both nodes have the guest's record. So each
test also speaks in between.
"""

from collections.abc import Callable

import pytest

from cgw_hooks.core.node_config import STEER
from tests.lab.network import NodeAddresses
from tests.netns.cluster import uplink
from tests.return_path.cluster import CHAIN, NODES, PROTOCOLS, TALK, Cluster
from tests.return_path.streams import guest_stream, transfer
from tests.return_path.way import Move, Way

pytestmark = pytest.mark.return_path

Speak = Callable[[], None]
SPEAKERS: dict[str, Callable[[Way], Speak]] = {
    "client-tcp": lambda way: way.connect().client_speaks,
    "guest-tcp": lambda way: way.connect().guest_speaks,
    "client-udp": lambda way: way.exchange().client_speaks,
    "guest-udp": lambda way: way.exchange().guest_speaks,
}
speakers = pytest.mark.parametrize("first", SPEAKERS.values(), ids=SPEAKERS)


def assert_new_connections_work(way: Way) -> None:
    """Through every node, at once."""
    for protocol in PROTOCOLS:
        for node in NODES:
            through = Way(way.made, way.guest, node, way.family)
            said = through.asks("client", protocol)
            assert (protocol, node, said) == (protocol, node, f"web2 saw {through.seen()}")


@speakers
def test_whoever_speaks_first_at_the_switch_over_is_heard(
    way: Way, move: Move, first: Callable[[Way], Speak]
) -> None:
    """There and back. Nothing else is sent that could have shown the way."""
    guest, speak = way.guest, first(way)

    def speak_at_once() -> None:
        assert guest.gateway_macs() == {NodeAddresses(move.source).bridge_mac}
        speak()

    guest.move(move.target, at_switch_over=speak_at_once)
    speak()
    assert_new_connections_work(way)
    guest.move(move.source, at_switch_over=speak)
    speak()


@speakers
def test_whoever_speaks_first_after_the_last_hook_is_heard(
    way: Way, move: Move, first: Callable[[Way], Speak]
) -> None:
    speak = first(way)
    way.guest.move(move.target)
    speak()
    way.guest.move(move.source)
    speak()


def test_new_connections_work_at_once(way: Way, move: Move) -> None:
    """Before anybody else has spoken: in the middle of the move, and after it."""
    way.guest.move(move.target, at_switch_over=lambda: assert_new_connections_work(way))
    assert_new_connections_work(way)


@pytest.mark.extended
def test_transfers_and_streams_go_on(way: Way, move: Move) -> None:
    """A download, an upload and a guest's stream of UDP, while the guest moves there and back."""
    down, up, stream = way.connect(), way.connect(), way.exchange()
    with (
        transfer(down.guest, down.client) as download,
        transfer(up.client, up.guest) as upload,
        guest_stream(stream) as datagrams,
    ):
        for place in (move.target, move.source):
            way.guest.move(place)
            download.wait_for()
            upload.wait_for()
            datagrams.wait_for()
        assert_new_connections_work(way)


@pytest.mark.parametrize("kind", ["download", "upload"])
def test_one_transfer_alone_goes_on(way: Way, move: Move, kind: str) -> None:
    """No other packet of the guest shows the way."""
    connection = way.connect()
    ends = connection.guest, connection.client
    with transfer(*(ends if kind == "download" else reversed(ends))) as running:
        way.guest.move(move.target)
        running.wait_for()
        way.guest.move(move.source)


def test_a_stream_of_the_guest_alone_goes_on(way: Way, move: Move) -> None:
    with guest_stream(way.exchange()) as datagrams:
        way.guest.move(move.target)
        datagrams.wait_for()
        way.guest.move(move.source)


def test_a_connection_outlives_many_moves(way: Way) -> None:
    way.made.put(way.guest.name, 1)
    pushed, asked = way.connect(), way.connect()
    pushed_udp, asked_udp = way.exchange(), way.exchange()
    for target in (2, 3, 1, 3):
        way.guest.move(target)
        pushed.guest_speaks()
        pushed_udp.guest_speaks()
        asked.client_speaks()
        asked_udp.client_speaks()


def test_a_guest_answers_by_the_entry_that_its_client_used_last(way: Way, move: Move) -> None:
    """What a node has learnt of a flow may be outdated when the guest comes back."""
    guest, exchange = way.guest, way.exchange()
    for place in move.target, move.source:
        guest.move(place)
        exchange.guest_speaks()
    for entry in NODES:
        exchange.enter_by(uplink(entry, way.family))
        for place in move.target, move.source:
            exchange.client_speaks()
            assert exchange.heard[-1][1][0] == uplink(entry, way.family)
            guest.move(place)


@pytest.mark.parametrize("return_path", [STEER], indirect=True)
@pytest.mark.parametrize("topology", [CHAIN], indirect=True)
def test_a_packet_that_has_missed_its_guest_at_the_former_node_misleads_nobody(
    made: Cluster, family: int
) -> None:
    """The former node has taken it up, and only then hears that the guest has left.

    The client says nothing more that would show the guest's node where it comes in.
    """
    way = Way(made, made.put("web2", 2), 1, family)
    exchange, former = way.exchange(), made.nodes[2].namespace
    element = ["element", "bridge", "cgw", "away", f"{{ {way.guest.mac} }}"]

    def miss() -> None:
        exchange.client_speaks()
        former.run(["nft", "delete", *element])
        exchange.client.sendto(b"late", (way.entry_address, way.port(TALK)))
        former.run(["nft", "add", *element])
        exchange.guest_speaks()

    way.guest.move(3, at_switch_over=miss)

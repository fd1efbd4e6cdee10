"""A node loses all its rules, and `cgw sync` writes them again."""

import socket

import pytest

from tests.lab.network import UPLINK_BRIDGE
from tests.netns.node import Node
from tests.return_path.cluster import CHAIN, CLIENT, Cluster
from tests.return_path.moving_guest import MovingGuest
from tests.return_path.sessions import Connection
from tests.return_path.streams import transfer
from tests.return_path.way import Way

pytestmark = pytest.mark.return_path


def lose_rules(node: Node) -> None:
    """Lose them as an admin does it; the kernel goes on without them."""
    node.namespace.run(["nft", "flush", "ruleset"])


def lose_rules_and_sync(made: Cluster) -> None:
    """Lose and write the rules of every node, while nothing is sent."""
    for node in made.nodes.values():
        lose_rules(node)
        node.cgw("sync")


def test_the_first_new_connection_works(way: Way, placed: MovingGuest, protocol: str) -> None:
    """Whatever a node learns from packets is lost, too."""
    lose_rules_and_sync(way.made)
    assert way.asks("client", protocol) == f"{placed.name} saw {way.seen()}"


@pytest.mark.parametrize("first", [Connection.client_speaks, Connection.guest_speaks])
@pytest.mark.usefixtures("placed")
def test_an_open_connection_goes_on(way: Way, first: object) -> None:
    connection = way.connect()
    lose_rules_and_sync(way.made)
    if first is Connection.client_speaks:
        connection.client_speaks()
    connection.guest_speaks()


@pytest.mark.parametrize("topology", [CHAIN], indirect=True)
@pytest.mark.parametrize(("entry", "place"), [(1, 3), (3, 1)], ids=["1-to-3", "3-to-1"])
def test_transfers_go_on_while_the_node_between_has_no_rules(
    made: Cluster, entry: int, place: int, family: int
) -> None:
    way = Way(made, made.put("web2", place), entry, family)
    down, up = way.connect(), way.connect()
    with (
        transfer(down.guest, down.client) as download,
        transfer(up.client, up.guest) as upload,
    ):
        lose_rules(made.nodes[2])
        download.wait_for()
        upload.wait_for()
        made.nodes[2].cgw("sync")
        download.wait_for()
        upload.wait_for()


def test_a_packet_of_a_guest_on_an_uplink_would_be_seen(made: Cluster) -> None:
    """Every test of this tier relies on this."""
    node, address = made.nodes[1].namespace, made.guests["web2"].address(4)
    node.ip(f"address add {address}/32 dev {UPLINK_BRIDGE}")
    try:
        with node.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as liar:
            liar.bind((address, 0))
            liar.sendto(b"", (CLIENT[4], 9))
        assert any(line.startswith(f"node1 {address} {CLIENT[4]} ") for line in made.leaks.found())
    finally:
        node.ip(f"address delete {address}/32 dev {UPLINK_BRIDGE}")

"""A node loses all its rules, and `cgw sync` writes them again."""

import socket
import struct

import pytest

from cgw_hooks.core.node_config import CT_SYNC
from tests.netns.node import Node
from tests.return_path.cluster import CHAIN, CLIENT, PROTOCOLS, Cluster
from tests.return_path.moving_guest import MovingGuest
from tests.return_path.sessions import Connection
from tests.return_path.streams import transfer
from tests.return_path.way import Way

pytestmark = pytest.mark.return_path


def lose_rules(node: Node) -> None:
    """Lose them as an admin does it; the kernel goes on without them."""
    node.namespace.run(["nft", "flush", "ruleset"])


def sync(node: Node) -> None:
    """Write them again. Its exit code says that libvirt does not answer here."""
    node.cgw("sync", check=False)


def lose_rules_and_sync(made: Cluster) -> None:
    """Lose and write the rules of every node, while nothing is sent."""
    for node in made.nodes.values():
        lose_rules(node)
        sync(node)


@pytest.mark.parametrize("protocol", PROTOCOLS)
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
    """With br_netfilter, ct-sync does not promise this (docs/return-paths.md): new ones work."""
    way = Way(made, made.put("web2", place), entry, family)
    if made.return_path == CT_SYNC and made.is_passing_bridged_packets:
        lose_rules(made.nodes[2])
        sync(made.nodes[2])
        way.connect().guest_speaks()
        return
    down, up = way.connect(), way.connect()
    with (
        transfer(down.guest, down.client) as download,
        transfer(up.client, up.guest) as upload,
    ):
        lose_rules(made.nodes[2])
        download.wait_for()
        upload.wait_for()
        sync(made.nodes[2])
        download.wait_for()
        upload.wait_for()
    # A node without rules forwards whatever it is handed. It may be asked for a packet's flow.
    assert [line for line in made.leaks.found() if not line.startswith("node2 ")] == []


def test_a_packet_of_a_guest_on_an_uplink_would_be_seen(built: Cluster) -> None:
    """Every test of this tier relies on this."""
    node, guest = built.nodes[1].namespace, built.guests["web2"].address(4)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20, 0, 0, 64, socket.IPPROTO_UDP, 0)
    packet = header + b"".join(map(socket.inet_aton, (guest, CLIENT[4])))
    with node.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)) as liar:
        liar.sendto(packet, ("eth0", 0x0800, 0, 0, b"\xff" * 6))
    assert [line.split()[:3] for line in built.leaks.found()] == [["node1", guest, CLIENT[4]]]

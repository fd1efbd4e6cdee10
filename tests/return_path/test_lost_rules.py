"""A node loses all its rules, and `cgw sync` writes them again."""

import socket

import pytest

from tests.netns.node import Node
from tests.return_path.cluster import (
    CHAIN,
    CLIENT,
    TALK,
    WHO,
    Cluster,
    listening_port,
    uplink,
)
from tests.return_path.leaks import Leaks
from tests.return_path.parameters import entries, families, places
from tests.return_path.sessions import Connection, connected
from tests.return_path.streams import transfer

pytestmark = pytest.mark.return_path

GUEST = "web2"


def lose_rules_and_sync(node: Node) -> None:
    """As `nft flush ruleset` by an admin, and what the agent does then."""
    node.namespace.run(["nft", "flush", "ruleset"])
    node.cgw("sync")


@families
@entries
@places
@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_the_first_new_connection_works(
    made: Cluster, entry: int, place: int, protocol: str, family: int
) -> None:
    """Whatever a node learns from packets is lost, too."""
    made.place(GUEST, place)
    for node in made.nodes.values():
        lose_rules_and_sync(node)
    asked = made.client.asks(uplink(entry, family), listening_port(GUEST, WHO), protocol)
    assert asked == f"{GUEST} saw {made.seen_as(CLIENT[family], entry)}"


@families
@entries
@places
@pytest.mark.parametrize("first", ["client", "guest"])
def test_an_open_connection_goes_on(
    made: Cluster, entry: int, place: int, first: str, family: int
) -> None:
    made.place(GUEST, place)
    port, talker = listening_port(GUEST, TALK), made.talkers[GUEST, family]
    with connected(made.client.namespace, uplink(entry, family), port, talker) as connection:
        connection.client_speaks()
        for node in made.nodes.values():
            lose_rules_and_sync(node)
        speak = {"client": Connection.client_speaks, "guest": Connection.guest_speaks}[first]
        speak(connection)


@families
@pytest.mark.parametrize(("entry", "place"), [(1, 3), (3, 1)])
@pytest.mark.parametrize("topology", [CHAIN], indirect=True)
def test_transfers_go_on_while_a_node_between_has_no_rules(
    made: Cluster, entry: int, place: int, family: int
) -> None:
    made.place(GUEST, place)
    where = (made.client.namespace, uplink(entry, family), listening_port(GUEST, TALK))
    talker = made.talkers[GUEST, family]
    with (
        connected(*where, talker) as down,
        connected(*where, talker) as up,
        transfer(down.guest, down.client) as download,
        transfer(up.client, up.guest) as upload,
    ):
        made.nodes[2].namespace.run(["nft", "flush", "ruleset"])
        for running in (download, upload):
            running.wait_for()
        made.nodes[2].cgw("sync")
        for running in (download, upload):
            running.wait_for()


def test_a_packet_of_a_guest_on_an_uplink_would_be_seen(made: Cluster) -> None:
    """What every test of this tier relies on."""
    leaks: Leaks = made.leaks
    guest = made.guests[GUEST]
    made.nodes[1].namespace.ip(f"address add {guest.address(4)}/32 dev xenbr0\n")
    try:
        with made.nodes[1].namespace.call(
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ) as liar:
            liar.bind((guest.address(4), 0))
            liar.sendto(b"", (CLIENT[4], 9))
        assert [line.split()[:3] for line in leaks.found()] == [
            ["node1", guest.address(4), CLIENT[4]]
        ]
    finally:
        made.nodes[1].namespace.ip(f"address del {guest.address(4)}/32 dev xenbr0\n")

"""The nodes of a running cluster get another return path, one after the other.

A node with FULL-NAT cannot return the answers to clients that a steering node has let in. So while
a cluster changes, new connections by a steering node reach the guests of steering nodes alone.
"""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from itertools import product

import pytest

from cgw_hooks.core.node_config import CT_SYNC, FULL_NAT, STEER
from tests.lab import network
from tests.netns.asker import PATIENCE_FOR_NOTHING, TIMED_OUT, spoken
from tests.netns.cluster import inside, uplink
from tests.netns.node import Node
from tests.return_path.cluster import (
    CLIENT,
    GUESTS,
    NODES,
    PROTOCOLS,
    TALK,
    WHO,
    Cluster,
    config,
    listening_port,
)
from tests.return_path.sessions import PATIENCE, Connection, Exchange, connect
from tests.return_path.way import Way

pytestmark = [
    pytest.mark.return_path,
    pytest.mark.parametrize("return_path", [FULL_NAT], indirect=True),
]

_POLL = 0.05
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_SYN_ACK_RETRIES = 5  # the kernel's default (ip-sysctl.rst)
Pair = tuple[int, str]
Open = dict[Pair, tuple[Connection, Exchange]]
PAIRS: list[Pair] = list(product(NODES, GUESTS))


@pytest.fixture
def changing(request: pytest.FixtureRequest, made: Cluster, topology: str) -> Iterator[Cluster]:
    """A cluster with FULL-NAT, guests at home. Its guest bridges do not have their bridge-mac yet.

    At the end, all nodes have FULL-NAT again, and nothing of the other return path is left.
    """
    has_br_netfilter = request.node.callspec.params["made"]
    for home, name in enumerate(GUESTS, start=1):
        made.put(name, home)
    before = [traces(node) for node in made.nodes.values()]
    set_syn_ack_retries(made, 0)
    for index, node in made.nodes.items():
        other = f"02:00:00:00:06:{index:02x}"
        node.namespace.ip(f"link set {network.GUEST_BRIDGE} address {other}\n")
    for node in made.nodes.values():
        node.namespace.ip(f"neigh flush dev {network.GUEST_BRIDGE}\n")
    for guest in made.guests.values():
        guest.wire.namespace.ip("neigh flush dev eth0\n")
    try:
        yield made
    finally:
        for index in made.nodes:
            change(made, index, STEER, topology)  # sets the MAC addresses
            change(made, index, FULL_NAT, topology)
        set_syn_ack_retries(made, _SYN_ACK_RETRIES)
        reset_all(made)
        if has_br_netfilter:
            # A node with FULL-NAT tracks what it bridges from a steering node, so it takes the
            # guest's answers for those to a client with a route to the guests.
            made.leaks.found()
    assert [traces(node) for node in made.nodes.values()] == before


def set_syn_ack_retries(made: Cluster, count: int) -> None:
    """Set how often guests send an answer again that is lost; 0: not later than in this test."""
    for guest in made.guests.values():
        guest.wire.namespace.sysctl({"net/ipv4/tcp_synack_retries": str(count)})


def reset_all(made: Cluster) -> None:
    """End all connections at once: a guest would repeat a FIN that finds no way."""
    for opened in made.opened:
        if isinstance(opened, Connection):
            for end in (opened.client, opened.guest):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                end.close()


def traces(node: Node) -> list[str]:
    """The words of the node's rules, in any order (nft lists elements as they come), and routes."""
    routes = [node.namespace.run(["ip", family, "rule"]).stdout for family in ("-4", "-6")]
    return sorted(node.ruleset().replace(",", " ").split()) + routes


def change(made: Cluster, index: int, return_path: str, topology: str) -> None:
    """Change a node as an admin does it."""
    made.nodes[index].configure(config(index, return_path, topology))
    made.nodes[index].cgw("node", "up")


def expected(entry: int, guest: str, steering: set[int], family: int) -> str:
    """What a guest at home must say to a new client, or that there is no answer."""
    if entry not in steering:
        return f"{guest} saw {inside(entry, family)}"
    home = GUESTS.index(guest) + 1
    return f"{guest} saw {CLIENT[family]}" if home in {entry, *steering} else TIMED_OUT


def assert_new_connections(made: Cluster, steering: set[int], family: int) -> None:
    """By every node, to every guest, over every protocol."""
    for entry, guest in PAIRS:
        wanted = expected(entry, guest, steering, family)
        patience = PATIENCE_FOR_NOTHING if wanted == TIMED_OUT else PATIENCE
        where = uplink(entry, family), listening_port(guest, WHO)
        said = {p: made.client.asks(*where, p, patience=patience) for p in PROTOCOLS}
        assert (entry, guest, said) == (entry, guest, dict.fromkeys(PROTOCOLS, wanted))


def open_all(made: Cluster, family: int) -> Open:
    """A connection and an exchange by every node to every guest."""
    found = {}
    for entry, guest in PAIRS:
        way = Way(made, made.guests[guest], entry, family)
        target = way.entry_address, way.port(TALK), way.talker
        exchange = Exchange(made.client.namespace, *target)
        exchange.client_speaks()
        found[entry, guest] = connect(made.client.namespace, *target), exchange
        made.opened += found[entry, guest]
    return found


def assert_go_on(opened: Open) -> None:
    """All connections and exchanges, whoever speaks first."""
    for connection, exchange in opened.values():
        for speaking in (connection, exchange):
            speaking.guest_speaks()
            speaking.client_speaks()


@pytest.mark.parametrize("other", [STEER, CT_SYNC])
def test_connections_go_on_while_the_nodes_change(
    changing: Cluster, topology: str, family: int, other: str
) -> None:
    """All of them, while the nodes become steering.

    While they get FULL-NAT again: those that began with it, or came in by their guest's own node.
    """
    older, steering = open_all(changing, family), set[int]()
    for index in NODES:
        change(changing, index, other, topology)
        steering.add(index)
        assert_new_connections(changing, steering, family)
        assert_go_on(older)
    steered = open_all(changing, family)
    for index in NODES:
        change(changing, index, FULL_NAT, topology)
        steering.remove(index)
        assert_new_connections(changing, steering, family)
        living = [(e, g) for e, g in PAIRS if GUESTS.index(g) + 1 in {e, *steering}]
        assert_go_on(older)
        assert_go_on({pair: steered[pair] for pair in living})


def test_what_has_no_answer_meanwhile_gets_one_when_the_guests_node_has_changed(
    changing: Cluster, topology: str, family: int
) -> None:
    client, where = changing.client, (uplink(1, family), listening_port("web2", WHO))
    change(changing, 1, STEER, topology)
    said: list[str] = []
    asking = threading.Thread(
        target=lambda: said.append(client.asks(*where, patience=PATIENCE)), daemon=True
    )
    with client.udp_sender(*where) as sender:
        assert not sender.exchange("1", PATIENCE_FOR_NOTHING).answered
        asking.start()
        wait_for_lost_answer(changing, family)
        change(changing, 2, STEER, topology)
        wanted = f"web2 saw {CLIENT[family]}"
        assert spoken(sender.exchange("2")) == wanted
        asking.join(PATIENCE)
    assert said == [wanted]


def wait_for_lost_answer(made: Cluster, family: int) -> None:
    """Wait until web2 has answered a SYN; its node lets no such answer out."""
    half_open = ["ss", "--no-header", "--numeric", "--tcp", "state", "syn-recv"]
    deadline = time.monotonic() + PATIENCE
    while CLIENT[family] not in made.guests["web2"].wire.namespace.run(half_open).stdout:
        assert time.monotonic() < deadline, "web2 has answered nobody"
        time.sleep(_POLL)

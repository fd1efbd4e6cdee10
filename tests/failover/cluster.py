"""The cluster of the return paths, with a conntrackd on each node, and nodes that die.

node1 is the entry that dies. Guest web3 runs on node3. The frames between node1 and node3 are
bridged through node2.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cgw_hooks.core.node_config import CT_SYNC
from tests.failover.conntrackd import Conntrackd
from tests.lab import network
from tests.lab.namespace import Namespace, destroy_namespace
from tests.libvirt.waiting import eventually
from tests.netns.cluster import inside, uplink
from tests.netns.node import Node
from tests.return_path.cluster import (
    CHAIN,
    TALK,
    WHO,
    Cluster,
    listening_port,
    open_cluster,
    start_daemons,
)
from tests.return_path.sessions import Connection, Exchange, Talker, connect

ENTRY, BETWEEN, HOME = 1, 2, 3
GUEST = "web3"
#: A port of the client's host that guests connect to.
OUTSIDE = 2500
PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass
class Failover:
    """The cluster, and the daemons of its nodes."""

    made: Cluster
    daemons: dict[int, Conntrackd]

    def node(self, index: int) -> Node:
        """A node that lives."""
        return self.made.nodes[index]

    def take_over(self, taker: int, dead: int = ENTRY) -> str:
        """Let a node take another one over; what the command says."""
        return self.node(taker).cgw("node", "takeover", f"node{dead}").stdout

    # -- connections ---------------------------------------------------------------------------

    def connect(self, family: int, *, entry: int = ENTRY) -> Connection:
        """A client's connection by an entry."""
        talker, port = self.made.talkers[GUEST, family], listening_port(GUEST, TALK)
        opened = connect(self.made.client.namespace, uplink(entry, family), port, talker)
        self.made.opened.append(opened)
        opened.client_speaks()
        return opened

    def connect_outward(self, guest: str, family: int) -> Connection:
        """A guest's own connection to the client's host, where it is the client."""
        address = {4: network.CLIENT_ADDRESS, 6: network.CLIENT_ADDRESS6}[family]
        server = Talker(self.made.client.namespace, address, OUTSIDE)
        self.made.until_end.callback(server.close)
        opened = connect(self.made.asker(guest).namespace, address, OUTSIDE, server)
        self.made.opened.append(opened)
        opened.client_speaks()
        assert opened.seen == uplink(self.made.guests[guest].place, family)
        return opened

    def exchange(self, family: int, *, entry: int = ENTRY) -> Exchange:
        """Datagrams between a client and the guest, by an entry; two have gone each way."""
        talker, port = self.made.talkers[GUEST, family], listening_port(GUEST, TALK)
        opened = Exchange(self.made.client.namespace, uplink(entry, family), port, talker)
        self.made.opened.append(opened)
        opened.client_speaks()
        opened.client_speaks()
        return opened

    def asks(self, entry: int, family: int) -> set[str]:
        """What the guest answers to new clients of this address, over all protocols."""
        port, address = listening_port(GUEST, WHO), uplink(entry, family)
        return {self.made.client.asks(address, port, protocol) for protocol in PROTOCOLS}

    def seen_by_guest(self, node: int, family: int) -> set[str]:
        """What the guest answers if a client has come in by this node."""
        client = {4: network.CLIENT_ADDRESS, 6: network.CLIENT_ADDRESS6}[family]
        return {f"{GUEST} saw {self.made.seen_as(client, node)}"}

    def wait_for_replication(
        self, at: int, *opened: Connection | Exchange, port: int = listening_port(GUEST, TALK)
    ) -> None:
        """Wait until a node knows these flows to a port, which another one has translated."""
        for each in opened:
            if self.made.return_path == CT_SYNC:
                self._wait_for_copy(at, each, port)
                continue
            state = "ESTABLISHED" if isinstance(each, Connection) else "udp"
            words = (state, f"sport={each.client.getsockname()[1]} ", f"dport={port} ")
            assert eventually(_has_flow(self.daemons[at], words)), words

    def _wait_for_copy(self, at: int, opened: Connection | Exchange, port: int) -> None:
        """Wait until a node's kernel tracks the flow, as assured: UDP after two seconds only."""
        words = (f"sport={opened.client.getsockname()[1]} ", f"dport={port} ", "ASSURED")

        def is_there() -> bool:
            if isinstance(opened, Exchange):
                # While answers begin to leave by the guest's node, one was seen to be lost.
                opened.client_speaks(losses=1)
            return _tracks(self.node(at).namespace, words)

        assert eventually(is_there), words

    # -- nodes ---------------------------------------------------------------------------------

    def kill_node(self, index: int = ENTRY) -> None:
        """Cut a node off all networks, and destroy it with all its processes."""
        node = self.made.nodes.pop(index)
        self.made.guests.pop(f"web{index}", None)
        network.unplug(node.namespace)
        self.daemons.pop(index).kill()
        destroy_namespace(node.namespace)


def taken_addresses(index: int) -> set[str]:
    """The addresses that another node takes over from a node."""
    return {where(index, family) for where in (uplink, inside) for family in (4, 6)}


def addresses_of(node: Node) -> set[str]:
    """All addresses of a node, without those that the kernel gives to each device."""
    said = node.namespace.run(
        ["ip", "-o", "address", "show", "scope", "global"]
    ).stdout.splitlines()
    return {line.split()[3].partition("/")[0] for line in said}


@contextmanager
def open_failover(folder: Path, return_path: str, topology: str = CHAIN) -> Iterator[Failover]:
    """A cluster with replication; each daemon hears the others when the block begins."""
    with ExitStack() as until_end:
        made = until_end.enter_context(open_cluster(folder, return_path, topology, replicate=True))
        found = Failover(made, made.daemons)
        until_end.callback(_close, found)
        if not made.daemons:
            start_daemons(made)
        yield found


def _close(failover: Failover) -> None:
    for opened in failover.made.opened:
        opened.abandon()
    for daemon in failover.daemons.values():
        daemon.kill()


def _tracks(inside: Namespace, words: tuple[str, ...]) -> bool:
    lines = inside.run(["cat", "/proc/net/nf_conntrack"]).stdout.splitlines()
    return any(all(word in line for word in words) for line in lines)


def _has_flow(daemon: Conntrackd, words: tuple[str, ...]) -> Callable[[], bool]:
    return lambda: daemon.has_flow(*words)

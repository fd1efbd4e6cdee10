"""The cluster of the return paths, with a conntrackd on each node, and nodes that die.

node1 is the entry that dies. Guest web3 runs on node3; in a chain, the frames between node1 and
node3 are bridged through node2.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.failover.conntrackd import Conntrackd
from tests.lab import network
from tests.lab.namespace import destroy_namespace
from tests.libvirt.waiting import eventually
from tests.netns.cluster import inside, uplink
from tests.netns.node import Node
from tests.return_path.cluster import Cluster, open_cluster

ENTRY = 1
GUEST = "web3"
HOME = 3
NODES = (1, 2, 3)


@dataclass
class Failover:
    """The cluster, and the daemons of its nodes."""

    made: Cluster
    daemons: dict[int, Conntrackd]

    def node(self, index: int) -> Node:
        """A node that lives."""
        return self.made.nodes[index]

    def wait_for_replication(self, at: int, *ports: int) -> None:
        """Wait until a node knows the flows of these client ports, which node1 has translated."""
        for port in ports:
            words = (f"sport={port} ", "dport=2303")
            assert eventually(lambda words=words: self.daemons[at].has_flow(*words)), words

    def kill_node(self, index: int = ENTRY) -> None:
        """Cut a node off all networks, and destroy it with all its processes."""
        node = self.made.nodes.pop(index)
        self.made.guests.pop(f"web{index}", None)
        network.unplug(node.namespace)
        self.daemons.pop(index).kill()
        destroy_namespace(node.namespace)

    def addresses_of(self, index: int) -> set[str]:
        """The addresses that a taker takes over from a node."""
        return {f(index, family) for f in (uplink, inside) for family in (4, 6)}


@contextmanager
def open_failover(folder: Path, return_path: str, topology: str) -> Iterator[Failover]:
    """A cluster with replication; each daemon hears the others when the block begins."""
    with ExitStack() as until_end:
        made = until_end.enter_context(
            open_cluster(folder, return_path, topology, replicate=True)
        )
        daemons: dict[int, Conntrackd] = {}
        until_end.callback(lambda: [daemon.kill() for daemon in daemons.values()])
        for index, node in made.nodes.items():
            daemons[index] = Conntrackd(node)
        found = Failover(made, daemons)
        for daemon in daemons.values():
            assert eventually(lambda daemon=daemon: _hears(daemon))
        yield found


def _hears(daemon: Conntrackd) -> bool:
    return " 0 Pckts recv" not in " ".join(daemon.ask("-s", "network").split())

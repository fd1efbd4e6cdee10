"""The registry of a cluster: a real etcd with a member for each node, and an agent on each node.

client --- uplink --- node1, node2, node3 --- guests     (tests/lab/cluster.py)
                        |      |      |
                      etcd1, etcd2, etcd3                (tests/lab/etcd.py)
"""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cgw_hooks.core.node_config import FULL_NAT
from tests.lab.cluster import CONFIG_FILE, Cluster, open_cluster
from tests.lab.etcd import EtcdCluster, open_etcd
from tests.lab.etcd_member import Member
from tests.lab.gateway_config import registry_table
from tests.lab.lab import chosen_suite
from tests.lab.node import Node

_PID_FILE = "/run/agent.pid"
_AGENT = f"echo $$ >{_PID_FILE}; exec cgw agent >>/var/log/agent 2>&1"
_LONGEST_WAIT = 300.0


class ClusterRegistry:
    """etcd, the nodes' way to it, and their agents."""

    def __init__(self, cluster: Cluster, etcd: EtcdCluster) -> None:
        self.etcd = etcd
        self.nodes = cluster.nodes
        self._ports = {node.name: etcd.join(node.network) for node in self.nodes}
        self._agents: dict[str, subprocess.Popen[str]] = {}
        for node in self.nodes:
            config = node.path(CONFIG_FILE)
            table = registry_table(etcd.config(self.member_of(node)))
            config.write_text(f"{config.read_text()}\n{table}")

    def member_of(self, node: Node) -> Member:
        """The member of etcd that is a node's own."""
        return self.etcd.members[node.index - 1]

    # -- agents ------------------------------------------------------------------------------

    def start_agents(self, *nodes: Node) -> None:
        """Start the agents of these nodes (default: all), as systemd would.

        Each is connected when this returns. Raises TimeoutError when one is not.
        """
        chosen = nodes or self.nodes
        for node in chosen:
            self._agents[node.name] = node.popen(["sh", "-c", _AGENT])
        self.wait_until_connected(chosen)

    def wait_until_connected(self, nodes: Sequence[Node] = ()) -> None:
        """Wait until the agents of these nodes (default: all) are connected."""
        deadline = time.monotonic() + _LONGEST_WAIT
        for node in nodes or self.nodes:
            while not _is_connected(node):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{node.name}: its agent is not connected to etcd")
                time.sleep(0.02)

    def kill_agent(self, node: Node) -> None:
        """Kill the agent of a node (SIGKILL)."""
        node.run(["sh", "-c", f"kill -KILL $(cat {_PID_FILE})"])
        self._forget_agent(node)

    def end(self) -> None:
        """Kill all agents."""
        for node in self.nodes:
            if node.name in self._agents:
                self.kill_agent(node)

    def _forget_agent(self, node: Node) -> None:
        agent = self._agents.pop(node.name, None)
        if agent:
            agent.communicate(timeout=_LONGEST_WAIT)

    # -- nodes -------------------------------------------------------------------------------

    def power_off(self, node: Node) -> None:
        """Let a node lose its power: its guests, its agent and its member of etcd are gone."""
        self.member_of(node).kill()
        self._ports[node.name].cut_off()
        node.power_off()
        self._forget_agent(node)

    def power_on(self, node: Node) -> None:
        """Boot a node that had no power, up to its agent. It runs no guest then."""
        self._ports[node.name].mend()
        self.etcd.start()
        node.power_on()
        node.run(["cgw", "node", "up"])
        self.start_agents(node)

    # -- what is in it -----------------------------------------------------------------------

    def entries(self) -> dict[str, str]:
        """The keys of guests and their values."""
        said = self.etcd.etcdctl("get", "--prefix", f"{self.etcd.config().prefix}/v1/guests/")
        lines = said.stdout.splitlines()
        return dict(zip(lines[::2], lines[1::2], strict=True))

    def homes_of(self, uuid: str) -> list[str]:
        """The nodes that have an entry of a guest."""
        places = [key.rpartition("/") for key in self.entries()]
        return sorted(node for guest, _, node in places if guest.endswith(f"/{uuid}"))


def _is_connected(node: Node) -> bool:
    said = node.run(["cgw", "registry", "status", "--json"], check=False).stdout
    return bool(said) and bool(json.loads(said)["connected"])


@contextmanager
def open_registered_cluster(
    suite: str | None = None, *, return_path: str = FULL_NAT, replicate: bool = False
) -> Iterator[tuple[Cluster, ClusterRegistry]]:
    """A cluster of this suite (default: that of $SUITE) whose agents share an etcd of this suite.

    Nothing of it is left at the end of the block.
    """
    with (
        open_etcd(suite or chosen_suite()) as etcd,
        open_cluster(suite, return_path=return_path, replicate=replicate) as cluster,
    ):
        registry = ClusterRegistry(cluster, etcd)
        try:
            registry.start_agents()
            yield cluster, registry
        finally:
            registry.end()

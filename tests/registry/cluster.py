"""Nodes whose agents speak to a real etcd: each node has a member that is its own.

client --- uplink --- node1, node2, node3 --- guests (tests/netns/cluster.py)
|      |      |
etcd1, etcd2, etcd3           (tests/lab/etcd.py)
"""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab import network
from tests.lab.etcd import EtcdCluster, open_etcd
from tests.lab.etcd_member import Port
from tests.lab.gateway_config import gateway_config, registry_table
from tests.lab.network import NodeAddresses
from tests.libvirt.waiting import eventually
from tests.netns.agent import Agent, running_agent
from tests.netns.asker import REFUSED, TIMED_OUT, Asker
from tests.netns.cluster import Cluster, cluster, uplink
from tests.netns.guest import Guest
from tests.netns.node import Node

#: Seconds. A kernel repeats a segment that was lost after one, three and seven.
_LONGEST_SILENCE = 60.0


class Refused:
    """Connections of a client, one after the other, and those that failed."""

    def __init__(self) -> None:
        self.stop = False
        self.made = 0
        self.failed: list[str] = []

    def connect(self, targets: list[str], port: int) -> None:
        """Connect until told to stop."""
        while not self.stop:
            for target in targets:
                try:
                    socket.create_connection((target, port), timeout=_LONGEST_SILENCE).close()
                except OSError as error:
                    self.failed.append(f"{target} after {self.made}: {error}")
                self.made += 1
            time.sleep(0.01)


@dataclass
class RegistryCluster:
    """The cluster, its etcd, and the agents that run."""

    wires: Cluster
    etcd: EtcdCluster
    ports: dict[int, Port]
    until_end: ExitStack
    agents: dict[int, tuple[ExitStack, Agent]] = field(default_factory=dict)

    @property
    def client(self) -> Asker:
        """The client outside."""
        return self.wires.client

    @property
    def nodes(self) -> dict[int, Node]:
        """The nodes by number."""
        return self.wires.nodes

    def guest(self, name: str) -> Guest:
        """A guest, which is wired to its home node."""
        return self.wires.guests[name]

    def start_agent(self, number: int) -> Agent:
        """Start the agent of a node, and wait until it is ready."""
        stack = self.until_end.enter_context(ExitStack())
        agent = stack.enter_context(running_agent(self.nodes[number]))
        self.agents[number] = stack, agent
        return agent

    def kill_agent(self, number: int) -> None:
        """Kill it, as the kernel does that is out of memory."""
        stack, _ = self.agents.pop(number)
        stack.close()

    def start_agents(self) -> None:
        """Start one on each node."""
        for number in self.nodes:
            self.start_agent(number)

    def answers(self, port: int, family: int = 4) -> dict[int, str]:
        """Who answers the client at each node."""
        return {n: self.client.asks(uplink(n, family), port) for n in self.nodes}

    def until_open(self, port: int, name: str) -> None:
        """Wait until a guest answers the client at every node."""
        assert eventually(
            lambda: all(answer.startswith(f"{name} ") for answer in self.answers(port).values())
        ), self.answers(port)

    def until_closed(self, port: int) -> None:
        """Wait until nobody answers the client at any node."""
        assert eventually(lambda: set(self.answers(port).values()) <= {REFUSED, TIMED_OUT})

    def connected(self, number: int) -> bool:
        """Whether a node's agent says that it is connected."""
        said = self.nodes[number].cgw("registry", "status", "--json", check=False).stdout
        return bool(said) and bool(json.loads(said)["connected"])

    @contextmanager
    def connecting(self, port: int, *numbers: int) -> Iterator["Refused"]:
        """Connect to a port at these nodes (default: all) every 10 ms during the block."""
        found = Refused()
        targets = [uplink(number, 4) for number in numbers or self.nodes]
        thread = threading.Thread(
            target=self.client.namespace.call, args=(lambda: found.connect(targets, port),)
        )
        thread.start()
        try:
            yield found
        finally:
            found.stop = True
            thread.join()

    def keys(self) -> dict[str, str]:
        """What the registry holds of guests."""
        said = self.etcd.etcdctl("get", "--prefix", f"{self.etcd.config().prefix}/v1/guests/")
        lines = said.stdout.splitlines()
        return dict(zip(lines[::2], lines[1::2], strict=True))

    def mend(self) -> None:
        """Let all members and all agents work again."""
        self.mend_etcd()
        for number in self.ports:
            if number not in self.agents:
                self.start_agent(number)
            self.agents[number][1].signal(signal.SIGCONT)
        for number in self.nodes:
            assert eventually(partial(self.connected, number)), number

    def mend_etcd(self) -> float:
        """Let all members work again, and the ways to them; return when they do (monotonic)."""
        for port in self.ports.values():
            port.mend()
        for member in self.etcd.members:
            member.port.mend()
            if member.is_running:
                member.resume()
        self.etcd.start()
        return time.monotonic()

    def until_agreed(self, expected: dict[int, str]) -> float:
        """Wait until all nodes agree about these ports; return when they do (monotonic).

        ``expected`` has the guest that answers at each port, "" where the port is closed.
        """
        assert eventually(lambda: self._are_agreed(expected)), expected
        return time.monotonic()

    def _are_agreed(self, expected: dict[int, str]) -> bool:
        return all(
            answer.startswith(f"{name} ") if name else answer == REFUSED
            for port, name in expected.items()
            for answer in self.answers(port).values()
        )

    def homes(self) -> list[str]:
        """The nodes that have an entry of a guest."""
        return sorted(key.rpartition("/")[2] for key in list(self.keys()))

    def status(self, number: int) -> dict[str, Any]:
        """What `cgw status --cluster --json` says at a node."""
        said = self.nodes[number].cgw("status", "--cluster", "--json", check=False).stdout
        found: dict[str, Any] = json.loads(said)
        return found


@contextmanager
def registry_cluster(
    folder: Path, suite: str, *, nodes: int = 3, **options: Any
) -> Iterator[RegistryCluster]:
    """Nodes that are gateways, with a config that names the registry; no agent runs yet."""
    homes = {f"web{n}": n for n in range(1, nodes + 1)}
    with ExitStack() as until_end:
        etcd = until_end.enter_context(open_etcd(suite, **options))
        wires = until_end.enter_context(cluster(folder, homes=homes, nodes=nodes, full_mesh=True))
        ports = {}
        for number, node in wires.nodes.items():
            ports[number] = etcd.join(node.namespace)
            member = etcd.members[(number - 1) % len(etcd.members)]
            config = f'[node]\nname = "node{number}"\n' + registry_table(etcd.config(member))
            node.configure(config + gateway_config(NodeAddresses(number), full_mesh=True))
            node.cgw("node", "up")
        if nodes > 2:
            network.close_ring([node.namespace for node in wires.nodes.values()])
            wires.nodes[nodes].cgw("node", "up")
        made = RegistryCluster(wires, etcd, ports, until_end)
        yield made


def hook(node: Node, guest: Guest, operation: str, reason: str = "-") -> int:
    """Call the hook of a node for a guest of another one, as a migration does."""
    return node.hook(guest.name, operation, reason, guest.xml).exit_code


def has_homes(made: RegistryCluster, *names: str) -> bool:
    """Whether exactly these nodes have an entry."""
    return made.homes() == list(names)


def has_no_records(node: Node) -> bool:
    """Whether a node has no record of any guest."""
    return node.state.keys() == []


def is_fine(node: Node) -> bool:
    """Whether a node has nothing to complain about."""
    return node.cgw("status", check=False).returncode == 0


def arrive(node: Node, guest: Guest) -> None:
    """Make the calls of a guest that arrives."""
    assert [hook(node, guest, o) for o in ("migrate", "prepare", "start", "started")] == [0] * 4


def leave(node: Node, guest: Guest, reason: str = "migrated") -> None:
    """Make the calls of a guest that has gone elsewhere: libvirt gives the reason at release."""
    assert hook(node, guest, "stopped") == hook(node, guest, "release", reason) == 0

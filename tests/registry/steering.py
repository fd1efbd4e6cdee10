"""Gateways that steer, and know each other by the registry alone: no [[remote-node]] tables.

    client --- uplink --- node1, node2, node3, node4 (a chain of guest bridges)
                          web1   web2   web3

The fourth node has its wires and its config, but no gateway and no agent: a test lets it join.
"""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from cgw_hooks.core.node_config import STEER
from tests.lab import network
from tests.lab.etcd import open_etcd
from tests.lab.gateway_config import gateway_config, registry_table
from tests.lab.network import CLIENT_ADDRESS, CLIENT_ADDRESS6, NodeAddresses
from tests.libvirt.waiting import eventually
from tests.netns.cluster import cluster
from tests.netns.node import CGW, Node
from tests.registry.cluster import RegistryCluster

MEMBERS = (1, 2, 3)
FOURTH = 4
CLIENT = {4: CLIENT_ADDRESS, 6: CLIENT_ADDRESS6}
_HOMES = {f"web{number}": number for number in MEMBERS}
_LONGEST_UP = 300.0
_PAUSE = 0.05
#: Elements that traffic adds.
_OF_TRAFFIC = re.compile(r"(flags dynamic[^}]*?)\n\t\telements = \{[^}]*\}")


class Resync:
    """Stands for cgw-resync.path: runs `cgw node up` whenever the agent has noted that it must."""

    def __init__(self, node: Node) -> None:
        self.ups = 0
        self._node = node
        self._file = node.runtime / "node.lost"
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        seen = self._version()
        while not self._has_ended.wait(_PAUSE):
            found = self._version()
            if found and found != seen:
                seen = found
                subprocess.run(
                    [*self._node.namespace.enter_command(), str(CGW), "node", "up"],
                    env=self._node.environment(), check=False, capture_output=True,
                    timeout=_LONGEST_UP,
                )  # fmt: skip
                self.ups += 1

    def _version(self) -> int:
        with suppress(FileNotFoundError):
            return self._file.stat().st_mtime_ns
        return 0

    def close(self) -> None:
        """End it."""
        self._has_ended.set()
        self._thread.join()


@contextmanager
def steering_cluster(folder: Path, suite: str) -> Iterator[RegistryCluster]:
    """Three nodes with agents, whose guests see their clients; the fourth may join."""
    with ExitStack() as until_end:
        etcd = until_end.enter_context(open_etcd(suite, count=1))
        wires = until_end.enter_context(cluster(folder, homes=_HOMES, nodes=FOURTH, full_mesh=True))
        out, back = network.INTERNODE_DEVICES
        wires.nodes[FOURTH].namespace.ip(f"link delete {out}\n")
        ports = {}
        for number, node in wires.nodes.items():
            ports[number] = etcd.join(node.namespace)
            internode = {1: (out,), FOURTH: (back,)}.get(number, (out, back))
            own = gateway_config(NodeAddresses(number), internode=internode, return_path=STEER)
            for address in node_addresses(number):
                taken = address.replace("250", "254")  # of the fourth node: the gateway's
                own = own.replace(f'node-address = "{taken}"', f'node-address = "{address}"')
            name = f'[node]\nname = "node{number}"\n'
            node.configure(name + registry_table(etcd.config()) + own)
            until_end.callback(Resync(node).close)
        made = RegistryCluster(wires, etcd, ports, until_end)
        for number in MEMBERS:
            made.nodes[number].cgw("node", "up")
            made.start_agent(number)
        yield made


def known(node: Node) -> list[str]:
    """The addresses of the other nodes by which a node routes answers."""
    found: set[str] = set()
    for family in ("-4", "-6"):
        said = node.namespace.run(["ip", family, "route", "show", "table", "all"]).stdout
        lines = [line.split() for line in said.splitlines() if "table 16" in line]
        found |= {words[words.index("via") + 1] for words in lines if words[0] == "default"}
    return sorted(found)


def addresses(*numbers: int) -> list[str]:
    """The node addresses of these nodes."""
    return sorted(address for number in numbers for address in node_addresses(number))


def node_addresses(number: int) -> tuple[str, str]:
    """The node addresses of a node. In the lab's plan, the fourth has the gateway's."""
    each = NodeAddresses(number if number in MEMBERS else 0)
    return each.guest_network, each.guest_network6


def until_known(made: RegistryCluster, *members: int, others: Sequence[int] = ()) -> None:
    """Wait until each of these nodes routes answers to exactly the others of them, or to these."""
    for number in members:
        node = made.nodes[number]
        wanted = addresses(*(others or (m for m in members if m != number)))
        assert eventually(partial(_routes_to, node, wanted)), (number, known(node), wanted)
        assert eventually(partial(_has_all_rules, node)), number


def _routes_to(node: Node, others: list[str]) -> bool:
    return known(node) == others


def _has_all_rules(node: Node) -> bool:
    return "table inet cgw is not" not in node.cgw("status", check=False).stderr


def traces(node: Node) -> dict[str, str]:
    """All that other nodes change on a node: rules, policy rules, routes, known nodes."""
    run = node.namespace.run
    return {
        "ruleset": _OF_TRAFFIC.sub(r"\1", node.ruleset()),
        # Rules of one priority are in the order in which they were added.
        "rules": str([sorted(run(["ip", f, "rule"]).stdout.splitlines()) for f in ("-4", "-6")]),
        "routes": "\n".join(known(node)),
        # The oldest comes first, and a node may be forgotten and come again.
        "nodes": str(sorted(json.loads((node.runtime / "nodes/nodes.json").read_text()))),
    }


def stays(node: Node, before: dict[str, str], seconds: float = 2.0) -> bool:
    """Whether nothing changes for some time. A change that comes later is not seen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if traces(node) != before:
            return False
        time.sleep(_PAUSE)
    return True

"""conntrackd on the nodes of a cluster, started as its unit starts it, without systemd."""

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial

from tests.lab.node import Node

_CONFIG = "/run/cgw/conntrackd.conf"  # written by `cgw node up`
_CONNTRACKD = f"rm -f /run/cgw/conntrackd.lock; exec conntrackd -C {_CONFIG} >/dev/null 2>&1"
_LONGEST_WAIT = 300.0
_LONGEST_END = 60.0
_POLL = 0.05


class Replication:
    """The daemons, which tell each other of their nodes' connections."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Start them; each has heard another one when this returns. Raises TimeoutError."""
        self._running: dict[str, subprocess.Popen[str]] = {}
        for node in nodes:
            self._running[node.name] = node.popen(["sh", "-c", _CONNTRACKD])
        for node in nodes:
            _wait(partial(_has_heard, node), f"{node.name}: conntrackd hears nobody")

    def end(self) -> None:
        """End those that still run."""
        for process in self._running.values():
            process.kill()
            process.communicate(timeout=_LONGEST_END)

    def wait_for_flow(self, node: Node, client_port: int) -> None:
        """Wait until a node knows another node's connection. Raises TimeoutError."""
        _wait(
            lambda: f" sport={client_port} " in _ask(node, "-e"),
            f"{node.name} does not know of the connection from port {client_port}",
        )


def _has_heard(node: Node) -> bool:
    found = re.search(r"(\d+) Pckts recv", _ask(node, "-s", "network"))
    return found is not None and int(found[1]) > 0


def _ask(node: Node, *question: str) -> str:
    return node.run(["conntrackd", "-C", _CONFIG, *question], check=False).stdout


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _LONGEST_WAIT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(_POLL)

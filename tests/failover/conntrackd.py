"""conntrackd of a node, started as its unit starts it, without systemd."""

import re
import shlex
import subprocess
from pathlib import Path

from cgw_hooks.host.paths import RUNTIME_DIRECTORY
from tests.netns.node import CHECKOUT, Node

UNIT = CHECKOUT / "etc/cgw-conntrackd.service"


class Conntrackd:
    """The daemon of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        before, start = (_command(self._node, key) for key in ("ExecStartPre", "ExecStart"))
        enter = self._node.namespace.enter_command()
        subprocess.run([*enter, *before], check=True)
        return subprocess.Popen([*enter, *start], stdout=subprocess.DEVNULL)

    def restart(self) -> None:
        """Start it again, after it has ended."""
        self.process = self._start()

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ask(self, *question: str) -> str:
        """Ask it as an admin does; empty if it does not run yet."""
        config = ["conntrackd", "-C", str(self._node.runtime / "conntrackd.conf")]
        command = [*self._node.namespace.enter_command(), *config, *question]
        return subprocess.run(command, capture_output=True, check=False, text=True).stdout

    def number(self, what: str) -> int:
        """A number of its network statistics; -1 if it does not run yet."""
        found = re.search(rf"{what}\D*(\d+)|(\d+) {what}", self.ask("-s", "network"))
        return int(found[1] or found[2]) if found else -1

    def hears_others(self) -> bool:
        """Whether it has heard another node's daemon."""
        return self.number("Pckts recv") > 0

    def has_flow(self, *words: str, cache: str = "-e") -> bool:
        """Whether one line of a cache (-e: of other nodes, -i: its own) has all these words."""
        return any(all(w in line for w in words) for line in self.ask(cache).splitlines())

    def kill(self) -> None:
        """End it at once, as a power failure does."""
        self.process.kill()
        self.process.wait()


def _command(node: Node, key: str) -> list[str]:
    """A command of the unit, for the node's own runtime directory."""
    lines = [line.partition("=") for line in UNIT.read_text().splitlines()]
    command = next(value for name, _, value in lines if name == key)
    return shlex.split(command.replace(RUNTIME_DIRECTORY, str(Path(node.runtime))))

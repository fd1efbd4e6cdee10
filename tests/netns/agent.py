"""`cgw agent` in a node, as a real process, and the hook script as `cgw install` writes it."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.netns.node import CGW, CHECKOUT, PYTHON, SCRIPT, Node

CLIENT = CHECKOUT / "cgw_hooks/agent/client.pl"
_LONGEST_START = 120.0
_LONGEST_WAIT = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Agent:
    """A running agent. It is killed at the end of the `with` block, if the test did not end it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.said: list[str] = []
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.settimeout(_LONGEST_START)
        self._notify.bind(str(node.folder / "notify"))
        told = {"NOTIFY_SOCKET": str(node.folder / "notify"), "CGW_ERRORS_TO_STDERR": "1"}
        environment = node.environment() | told
        self.process = subprocess.Popen(
            [*node.namespace.enter_command(), str(CGW), "agent"],
            env=environment, cwd="/", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_until_told(self, what: str) -> None:
        """Wait until systemd would be told this line, for example READY=1."""
        while what not in self.said:
            self.said += self._notify.recv(4096).decode().splitlines()
        self.said.clear()

    def signal(self, number: int) -> None:
        """Send a signal to the agent."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; return the exit code."""
        return self.process.wait(timeout=_LONGEST_WAIT)

    def cpu_seconds(self) -> float:
        """The processor time that the agent has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_megabytes(self) -> float:
        """The memory that the agent has in use."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024

    def close(self) -> None:
        """End it, however it is."""
        self._notify.close()
        (self._node.folder / "notify").unlink(missing_ok=True)
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()


@contextmanager
def running_agent(node: Node) -> Iterator[Agent]:
    """An agent that is ready. Hook calls of the node are handed to it."""
    use_installed_hook(node)
    agent = Agent(node)
    try:
        agent.wait_until_told("READY=1")
        yield agent
    finally:
        agent.close()


def use_installed_hook(node: Node, cgw: Path = CGW) -> None:
    """Let the node call the hook script as `cgw install` writes it; `cgw` is its last resort."""
    place = node.folder / "hooks/qemu.d/50-cgw"
    place.parent.mkdir(parents=True, exist_ok=True)
    paths = f"python='{PYTHON}' cgw='{cgw}' client='{CLIENT}'\n"
    place.write_text(SCRIPT.read_text().replace("python= cgw=cgw client=\n", paths))
    place.chmod(0o755)
    node.program = place


def refuse_to_work(node: Node) -> None:
    """Let `cgw hook` do nothing but leave a trace: a call that works was served by the agent."""
    program = node.folder / "cgw-that-notes"
    program.write_text(f"open({str(trace(node))!r}, 'a').write('called\\n')\n")
    use_installed_hook(node, cgw=program)


def trace(node: Node) -> Path:
    """The file that a call of `cgw hook` leaves behind after `refuse_to_work`."""
    return node.folder / "trace"

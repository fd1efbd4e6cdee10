"""What a hook call costs with the agent, and how fast the agent heals a flushed ruleset.

    sudo make bench

Hook calls are those of the hook script as ``cgw install`` writes it. The cases take turns in every
round, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import netns

from benchmarks.hook_call import Node, annotated, installed
from benchmarks.turns import print_ratios, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHECKOUT = Path(__file__).parent.parent
_INTERPRETER = "/usr/bin/python3"
_OPERATIONS = ("prepare", "started", "stopped", "release")
_FEW, _HEALED, _MANY = 10, 10_000, 50_000
_PORTS = 5
_AT_ONCE = 100
_IDLE_SECONDS = 60
_TICKS = os.sysconf("SC_CLK_TCK")


class AgentNode:
    """A node whose hook calls are made by the hook script, and handed over if an agent runs."""

    def __init__(self, stack: ExitStack, cgw: str, published: int) -> None:
        self.node = Node(stack, cgw, published)
        prefix = Path(cgw).parent.parent
        script = (_CHECKOUT / "hooks/qemu.d/50-cgw").read_text()
        client = prefix / "lib/cgw/cgw_hooks/agent/client.pl"
        paths = f"python='{_INTERPRETER}' cgw='{cgw}' client='{client}'\n"
        self.script = Path(self.node.directory) / "qemu.d/50-cgw"
        self.script.parent.mkdir()
        self.script.write_text(script.replace("python= cgw=cgw client=\n", paths))
        self.script.chmod(0o755)

    def hook(self, operation: str, xml: bytes, name: str = "web1") -> float:
        """Call the hook script; seconds."""
        return self.node.call([str(self.script), name, operation, "begin", "-"], xml)

    def all_operations(self, xml: bytes, measured: str) -> float:
        """Make all calls of one guest; return the seconds of one of them."""
        return {operation: self.hook(operation, xml) for operation in _OPERATIONS}[measured]

    def start_at_once(self) -> float:
        """Start 100 guests at once, and stop them; return the seconds of the start."""
        for number in range(_AT_ONCE):
            definition = annotated(f"guest{number}", number, 1, 2000 + number)
            self.definition_of(number).write_bytes(definition)
        start = sum(map(self._call_for_all, ("prepare", "started")))
        for operation in ("stopped", "release"):
            self._call_for_all(operation)
        return start

    def definition_of(self, number: int) -> Path:
        """Return the file with the definition of one of the 100 guests."""
        return Path(self.node.directory) / f"guest{number}.xml"

    def _call_for_all(self, operation: str) -> float:
        """Call the hook of all guests at once; seconds.

        A shell starts them: the threads of this process would compute as long as the hooks do.
        """
        failed = Path(self.node.directory) / "failed"
        calls = "".join(
            f"{{ {self.script} guest{number} {operation} begin - <{self.definition_of(number)} "
            f"|| : >{failed}; }} &\n"
            for number in range(_AT_ONCE)
        )
        seconds = self.node.call(["/bin/sh"], f"{calls}wait\n".encode())
        if failed.exists():
            raise RuntimeError(f"a hook call failed at {operation}")
        return seconds

    def flush(self) -> float:
        """Flush the ruleset; return the seconds until all ports are there again."""
        netns.pushns(self.node.namespace)
        try:
            subprocess.run(["nft", "flush", "ruleset"], check=True)
            begun = time.perf_counter()
            probe = ["nft", "get", "element", "inet", "cgw", "published4", "{ tcp . 20000 }"]
            while subprocess.run(probe, capture_output=True, check=False).returncode:
                time.sleep(0.005)
            return time.perf_counter() - begun
        finally:
            netns.popns()


@contextmanager
def agent_of(node: AgentNode) -> Iterator[int]:
    """An agent that is ready, with the priority that its unit has; its process ID."""
    told = f"{node.node.directory}/told"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(told)
        netns.pushns(node.node.namespace)
        try:
            process = subprocess.Popen(
                ["nice", "-n", "-10", _INTERPRETER, "-I", node.node.cgw, "agent"],
                env=node.node.environment | {"NOTIFY_SOCKET": told}, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            netns.popns()
        while b"READY=1" not in ready.recv(4096):
            pass
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait()


def cases(alone: AgentNode, few: AgentNode, many: AgentNode) -> Iterator[tuple[str, _Case]]:
    """Name and action of each case; an action leaves its node unchanged."""
    xml = annotated("web1", 2, _PORTS, first_port=8000)
    yield "python3 -I -c pass", lambda: few.node.call([_INTERPRETER, "-I", "-c", "pass"], b"")
    for what, node in (
        ("agent", few),
        (f"agent, {_MANY:,} others published", many),
        ("no agent", alone),
    ):
        for operation in _OPERATIONS:
            measure = partial(node.all_operations, xml, operation)
            yield f"{operation}, {_PORTS} ports, {what}", measure


if TYPE_CHECKING:
    _Case = Callable[[], float]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a hook call costs with the agent.")
    parser.add_argument("--rounds", type=int, default=25, help="measurements of each case")
    parser.add_argument("--idle", type=int, default=_IDLE_SECONDS, help="seconds without any event")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        cgw = installed(stack)
        alone, few, healed, many = (
            AgentNode(stack, cgw, number) for number in (_FEW + 1, _FEW, _HEALED, _MANY)
        )
        agents = [stack.enter_context(agent_of(node)) for node in (few, healed, many)]
        times = take_turns(dict(cases(alone, few, many)), arguments.rounds, warm_up=2)
        notes = [
            _starts([(few.start_at_once(), alone.start_at_once()) for _ in range(3)]),
            _heals(sorted(healed.flush() for _ in range(5))),
            _idle(agents[0], arguments.idle, _FEW),
            _idle(agents[2], 1, _MANY),
        ]
    print_ratios(
        "CASE", times, *notes,
        f"{arguments.rounds} rounds; ratios to a bare interpreter in the same run.",
    )  # fmt: skip
    return 0


def _starts(seconds: list[tuple[float, float]]) -> str:
    ratio = statistics.median(alone / served for served, alone in seconds)
    served, alone = (statistics.median(times) for times in zip(*seconds, strict=True))
    return (
        f"{_AT_ONCE} guests started at once: {served:.2f} s with the agent, {alone:.2f} s without: "
        f"{ratio:.1f} times as long"
    )


def _heals(seconds: list[float]) -> str:
    return (
        f"a flush is healed at {_HEALED:,} ports in {statistics.median(seconds):.2f} s "
        f"(median of {len(seconds)}; longest {seconds[-1]:.2f} s)"
    )


def _idle(pid: int, seconds: int, published: int) -> str:
    begun = _cpu_seconds(pid)
    time.sleep(seconds)
    spent = _cpu_seconds(pid) - begun
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    return (
        f"agent at {published:,} ports: {spent:.2f} s of processor time in {seconds} s without any "
        f"event, {resident:.0f} MiB resident"
    )


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    sys.exit(main())

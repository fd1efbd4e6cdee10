"""`cgw trace` in the tests: it is started, waits for a packet, and tells its story."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.netns.node import Node, Process

_LONGEST = 120.0


@dataclass(frozen=True)
class Told:
    """What a trace has printed."""

    exit_code: int
    output: str

    @property
    def lines(self) -> list[str]:
        """The lines of the story, and how it ended."""
        return self.output.splitlines()

    @property
    def end(self) -> str:
        """The last line."""
        return self.lines[-1]

    @property
    def cure(self) -> str:
        """The command that the last line tells to run."""
        _, found, command = self.end.partition("; run: ")
        assert found, self.end
        return command

    @property
    def json(self) -> dict[str, Any]:
        """The object of `--json`."""
        value: dict[str, Any] = json.loads(self.output)
        return value


class Tracing:
    """A trace that runs in the background."""

    def __init__(self, node: Node, *arguments: str) -> None:
        self._node = node
        self.process: Process = node.start_cgw("trace", *arguments)
        assert self.process.stderr
        #: What it says first: that it waits, or its error.
        self.first_line = self.process.stderr.readline().decode().strip()

    @property
    def is_armed(self) -> bool:
        """Whether it waits for a packet."""
        return self.first_line.startswith("waiting ")

    def told(self) -> Told:
        """Wait until it has ended; assert that nothing of it is left."""
        output, errors = self.process.communicate(timeout=_LONGEST)
        assert errors == b""
        return Told(self.process.wait(), output.decode())


def start_trace(node: Node, *arguments: str) -> Tracing:
    """Start a trace, and wait until it is armed."""
    tracing = Tracing(node, *arguments)
    assert tracing.is_armed, tracing.first_line
    return tracing


def trace(node: Node, subject: str, ask: Callable[[], object], *options: str) -> Told:
    """Trace a port while somebody asks it."""
    tracing = start_trace(node, subject, *options)
    ask()
    told = tracing.told()
    assert trace_tables(node) == []
    return told


def trace_tables(node: Node) -> list[str]:
    """The tables of traces that the kernel has."""
    listing = node.nft("list tables\n").splitlines()
    return sorted(line.removeprefix("table ") for line in listing if "cgw_trace" in line)

"""`cgw trace` in the tests: it is started, waits for a packet, and tells its story."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.netns.node import Node, Process

_LONGEST = 120.0


@dataclass(frozen=True)
class Told:
    """What a trace has printed."""

    exit_code: int
    story: str
    problem: str

    @property
    def json(self) -> dict[str, Any]:
        """The object of `--json`."""
        value: dict[str, Any] = json.loads(self.story)
        return value


class Tracing:
    """A trace that runs in the background."""

    def __init__(self, node: Node, *arguments: str) -> None:
        self.process: Process = node.start_cgw("trace", *arguments)
        assert self.process.stderr
        #: The line that it says once it is armed; or the error.
        self.first_line = self.process.stderr.readline().decode()

    @property
    def is_armed(self) -> bool:
        """Whether it waits for a packet."""
        return self.first_line.startswith("waiting ")

    def told(self) -> Told:
        """Wait until it has ended."""
        out, err = self.process.communicate(timeout=_LONGEST)
        return Told(self.process.wait(), out.decode(), err.decode().strip())


def trace(node: Node, subject: str, ask: Callable[[], object], *options: str) -> Told:
    """Trace a port while somebody asks it."""
    tracing = Tracing(node, subject, *options)
    assert tracing.is_armed, tracing.first_line
    ask()
    told = tracing.told()
    assert_disarmed(node)
    return told


def trace_tables(node: Node) -> list[str]:
    """The tables of traces that the kernel has."""
    listing = node.nft("list tables\n").splitlines()
    return [line.removeprefix("table ") for line in listing if "cgw_trace" in line]


def assert_disarmed(node: Node) -> None:
    """Assert that no trace is left."""
    assert trace_tables(node) == []


__all__ = ["Told", "Tracing", "assert_disarmed", "subprocess", "trace", "trace_tables"]

"""The demo's output: one line before each step, its result below."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

DETAIL = " " * 4


class DemoError(Exception):
    """The result of a step was not as the demo says."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print what the step does, before it begins."""
    say(f"$ {what}" if what.startswith("virsh") else f"- {what}")
    yield


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()

"""How the demo tells what it does: a line before each step, what came of it below."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

DETAIL = " " * 4


class DemoError(Exception):
    """Something that the demo shows was not so."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is done, before it is done."""
    say(f"$ {what}" if what.startswith("virsh") else f"- {what}")
    yield


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()

"""The demo's output: one line before each step, its result below."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.lab.host import Host

DETAIL = " " * 4
_LONGEST_WAIT = 300.0


class DemoError(Exception):
    """The result of a step was not as the demo says."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print what the step does, before it begins."""
    is_command = what.startswith(("virsh", "cgw", "nft"))
    say(f"$ {what}" if is_command else f"- {what}")
    yield


def run(host: Host, *command: str, on: bool = False, shows: bool = True) -> None:
    """Run a command in a host, and print it and its output.

    `on` adds the host's name; without `shows` the output is not printed. Raises HostError.
    """
    with step(shlex.join(command) + (f"   # on {host.name}" if on else "")):
        output = host.run(command).stdout
    for line in output.splitlines() if shows else ():
        say(f"{DETAIL}{line}".rstrip())


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds. Raises DemoError after some minutes."""
    deadline = time.monotonic() + _LONGEST_WAIT
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"{what} did not come in {_LONGEST_WAIT:.0f} s")
        time.sleep(0.05)

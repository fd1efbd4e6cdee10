"""The demo's output: one line before each step, its result below."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.lab.host import Host, HostError

DETAIL = " " * 4
_LONGEST_WAIT = 300.0
_PAUSE = 1.0


class DemoError(Exception):
    """The result of a step was not as the demo says."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print what the step does, before it begins."""
    is_command = what.startswith(("virsh", "cgw", "nft"))
    say(f"$ {what}" if is_command else f"- {what}")
    yield


def run(host: Host, *command: str, on: bool = False, shows: bool = True, tries: int = 1) -> None:
    """Run a command in a host, and print it and its output.

    `on` adds the host's name; without `shows` the output is not printed. A question that has a
    deadline needs several `tries` on a busy machine. Raises HostError.
    """
    with step(shlex.join(command) + (f"   # on {host.name}" if on else "")):
        output = _output(host, command, tries)
    for line in output.splitlines() if shows else ():
        say(f"{DETAIL}{line}".rstrip())


def _output(host: Host, command: Sequence[str], tries: int) -> str:
    for _ in range(tries - 1):
        try:
            return host.run(command).stdout
        except HostError:
            time.sleep(_PAUSE)
    return host.run(command).stdout


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

"""Servers in network namespaces, each a process of its own that answers as the lab's guest does."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.namespace import Namespace

CHECKOUT = Path(__file__).parent.parent.parent


class ServerError(Exception):
    """The server did not come up; the text has what it said."""


@contextmanager
def serve(
    namespace: Namespace, address: str, protocol: str, port: int, name: str
) -> Iterator[subprocess.Popen[str]]:
    """A server process in `namespace`, serving when the block begins and gone when it ends.

    `protocol` is "tcp" (names itself and the peer it saw, and closes), "tcp-echo" (sends back what
    comes), "udp" or "sctp" (name themselves, the peer and the payload).
    """
    # A session of its own: the Ctrl-C of a terminal is for the test run, which then ends this.
    process = subprocess.Popen(
        [*namespace.enter_command(), sys.executable, "-m", "tests.lab.echo_server",
         name, protocol, address, str(port)],
        cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        if not process.stdout.readline():
            raise ServerError(f"{name}: {process.stderr.read().strip()}")
        try:
            yield process
        finally:
            process.kill()

"""Servers in network namespaces, each a process of its own that answers as the lab's guest does."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import forked
from tests.lab.forked import Forked
from tests.lab.namespace import Namespace


class ServerError(Exception):
    """The server did not come up; the text has what it said."""


@contextmanager
def serve(
    namespace: Namespace, address: str, protocol: str, port: int, name: str
) -> Iterator[Forked]:
    """A server process in `namespace`, serving when the block begins and gone when it ends.

    `protocol` is "tcp" (names itself and the peer it saw, and closes), "tcp-echo" (sends back what
    comes), "udp" or "sctp" (name themselves, the peer and the payload).
    """
    process = forked.start(
        namespace, "tests.lab.echo_server:run", ["echo_server", name, protocol, address, str(port)],
        python=Path(sys.executable), modules=["tests.lab.echo_server"], environment={},
    )  # fmt: skip
    try:
        if not process.stdout.readline():
            raise ServerError(f"{name}: {process.stderr.read().decode().strip()}")
        yield process
    finally:
        process.kill()
        process.wait()
        process.close()

"""Runs code in a new network namespace, if it must not touch the host's network."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_NETWORK = "/proc/thread-self/ns/net"


@contextmanager
def own_network(links: str) -> Iterator[bool]:
    """Put this thread, and the processes that it starts, into a new network namespace for a while.

    ``links``: ``ip`` commands, one per line, that add devices to it. Yields False if the kernel
    refuses a new namespace: the thread is then still in the host's. Raises ``OSError`` if the
    thread cannot return to the host's namespace.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    host_network = os.open(_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET) != 0:
            yield False
            return
        try:
            _furnish(links)
            yield True
        finally:
            if libc.setns(host_network, _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), _NETWORK)
    finally:
        os.close(host_network)


def _furnish(links: str) -> None:
    with suppress(OSError):  # without iproute2 the namespace stays empty
        subprocess.run(
            ["ip", "-batch", "-"],  # noqa: S607  (found on PATH, as elsewhere)
            input=links.encode(), capture_output=True, check=False,
        )  # fmt: skip

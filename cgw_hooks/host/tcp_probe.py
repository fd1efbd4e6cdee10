"""Connects to TCP ports, many at once, and says how each attempt ends. No data is sent."""

from __future__ import annotations

import errno
import resource
import selectors
import socket
import time
from typing import cast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.published_port import Address

    Target = tuple[Address, int]

#: How an attempt ends.
OPEN, REFUSED, SILENT, UNREACHABLE = "open", "refused", "silent", "unreachable"

#: At most this many attempts at once, and fewer if the process may not open as many files.
_AT_ONCE, _OTHER_FILES = 1000, 64
#: Seconds for one attempt: the kernel sends its first packet again after 1 s (RFC 6298 section 2).
_PATIENCE = 1.3
#: Seconds after which no attempt begins. What is not tried then has no result.
_LONGEST = 1.3
#: So many attempts begin at once; then answers are read for this time. A burst would fill queues.
_BURST, _PAUSE = 100, 0.01
#: The errors of a host that has no room for more neighbours, ports or memory now.
_OVERFLOWS = {errno.ENOBUFS, errno.EAGAIN, errno.EADDRNOTAVAIL, errno.ENOMEM}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


def connect(targets: Iterable[Target]) -> dict[Target, str]:
    """Return how a connection to each target ends; a target that was not tried is left out."""
    waiting = list(dict.fromkeys(targets))[::-1]
    found: dict[Target, str] = {}
    end = time.monotonic() + _LONGEST
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    at_once = max(min(_AT_ONCE, allowed - _OTHER_FILES), 1)
    with selectors.DefaultSelector() as selector:
        while waiting or selector.get_map():
            room = min(at_once - len(selector.get_map()), _BURST, len(waiting))
            for _ in range(room):
                _begin(selector, waiting.pop(), found)
            is_over = time.monotonic() >= end
            if is_over:
                waiting.clear()
            _collect(selector, found, _PAUSE if waiting and room == _BURST else _PATIENCE)
    return found


def _begin(selector: selectors.BaseSelector, target: Target, found: dict[Target, str]) -> None:
    address, port = target
    made = socket.socket(_FAMILY[address.version], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    number = made.connect_ex((str(address), port))
    if number == errno.EINPROGRESS:
        data = target, time.monotonic() + _PATIENCE
        selector.register(made, selectors.EVENT_WRITE, data)
        return
    made.close()
    if number not in _OVERFLOWS:
        found[target] = _result(number)


def _collect(selector: selectors.BaseSelector, found: dict[Target, str], seconds: float) -> None:
    """Wait for the next results, and give up what has waited long enough."""
    if not selector.get_map():
        return
    first = min(key.data[1] for key in selector.get_map().values())
    left = max(first - time.monotonic(), 0.0)
    ready = {key.fd for key, _ in selector.select(min(left, seconds))}
    now = time.monotonic()
    for key in list(selector.get_map().values()):
        target, until = key.data
        if key.fd not in ready and now < until:
            continue
        made = cast("socket.socket", key.fileobj)
        number = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number not in _OVERFLOWS:
            found[target] = _result(number) if key.fd in ready else SILENT
        selector.unregister(made)
        made.close()


def _result(number: int) -> str:
    if number == 0:
        return OPEN
    return REFUSED if number == errno.ECONNREFUSED else UNREACHABLE

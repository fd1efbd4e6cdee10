"""Answers scrapes: HTTP on a loopback address or a Unix socket.

Any user of the host may connect to a loopback address. So a client has little time and may say
little, and if many clients hold connections, the oldest one loses its own.
"""

from __future__ import annotations

import selectors
import socket
import time
from typing import TYPE_CHECKING

from cgw_hooks.host.metrics_socket import listen

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgw_hooks.core.node_config import Metrics

#: Seconds within which a client must have sent its request and taken the answer.
_DEADLINE = 5.0
_PAUSE = 0.1
_LONGEST_HEAD = 8192
_MOST_CLIENTS = 32
_PATH = b"/metrics"
_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class _Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.end = time.monotonic() + _DEADLINE
        self.head = b""
        self.answer = memoryview(b"")


class ScrapeServer:
    """Serves one page. Only one thread may use it. Raises ``OSError`` if it cannot listen."""

    def __init__(self, config: Metrics, page: Callable[[], bytes]) -> None:
        self._page = page
        self._listener = listen(config)
        self._clients: list[_Client] = []
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(self._listener, selectors.EVENT_READ)

    def fileno(self) -> int:
        """Return a descriptor that is readable if there is something to do (epoll(7))."""
        return self._waiting.fileno()

    def close(self) -> None:
        """Close all connections, and listen no more."""
        for client in [*self._clients]:
            self._drop(client)
        self._waiting.close()
        self._listener.close()

    @property
    def pause(self) -> float:
        """The seconds until a client's time is over."""
        now = time.monotonic()
        return max(0.0, min((client.end - now for client in self._clients), default=_DEADLINE))

    def serve(self) -> None:
        """Do what can be done without waiting."""
        for key, _ in self._waiting.select(0):
            if key.data is None:
                self._accept()
            elif key.data in self._clients:
                try:
                    self._go_on(key.data)
                except OSError:  # the client has ended
                    self._drop(key.data)
        now = time.monotonic()
        for client in [client for client in self._clients if client.end <= now]:
            self._drop(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the client has ended; or no descriptor is left, and this must be no loop
            time.sleep(_PAUSE)
            return
        connection.setblocking(False)
        client = _Client(connection)
        self._clients.append(client)
        self._waiting.register(connection, selectors.EVENT_READ, client)
        if len(self._clients) > _MOST_CLIENTS:
            self._drop(self._clients[0])

    def _go_on(self, client: _Client) -> None:
        if client.answer:
            client.answer = client.answer[client.connection.send(client.answer) :]
            if not client.answer:
                self._drop(client)
            return
        part = client.connection.recv(_LONGEST_HEAD)
        client.head += part
        is_whole = b"\r\n\r\n" in client.head or b"\n\n" in client.head
        if not part or (not is_whole and len(client.head) > _LONGEST_HEAD):
            self._drop(client)
        elif is_whole:
            client.answer = memoryview(self._answer(client.head))
            self._waiting.modify(client.connection, selectors.EVENT_WRITE, client)

    def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\n", 1)[0].split()
        method, path = (words[0], words[1].partition(b"?")[0]) if len(words) > 1 else (b"", b"")
        if method not in {b"GET", b"HEAD"}:
            return _packed(b"405 Method Not Allowed", b"Only GET.\n")
        if path != _PATH:
            return _packed(b"404 Not Found", b"See /metrics.\n")
        return _packed(b"200 OK", self._page(), is_head=method == b"HEAD")

    def _drop(self, client: _Client) -> None:
        self._clients.remove(client)
        self._waiting.unregister(client.connection)
        client.connection.close()


def _packed(status: bytes, body: bytes, *, is_head: bool = False) -> bytes:
    head = (
        b"HTTP/1.1 " + status + b"\r\nContent-Type: " + _TYPE + b"\r\n"
        b"Content-Length: " + str(len(body)).encode() + b"\r\nConnection: close\r\n\r\n"
    )  # fmt: skip
    return head if is_head else head + body

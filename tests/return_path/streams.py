"""Traffic that flows one way while something else happens: TCP in bulk, and a stream of UDP."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from zlib import crc32

from tests.return_path.sessions import PATIENCE, Exchange

_CHUNK = bytes(range(256)) * 256
_LARGEST_READ = 1 << 18
#: Bytes that must have come before a transfer counts as running, and after a change as going on:
#: more than all buffers on the way can hold.
ENOUGH = 16 << 20
#: Seconds between two datagrams of a stream.
_INTERVAL = 0.005
_ENOUGH_DATAGRAMS = 20
_POLL = 0.005


class Transfer:
    """Bytes from one end of a connection to the other, as many as go, until `finish`."""

    def __init__(self, sender: socket.socket, receiver: socket.socket) -> None:
        self.received = 0
        self._sent = 0
        self._sums = {"sent": 0, "received": 0}
        self._is_over = threading.Event()
        self._failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._noting, args=(work, end), daemon=True)
            for work, end in ((self._send, sender), (self._receive, receiver))
        ]
        for thread in self._threads:
            thread.start()

    def _noting(self, work: Callable[[socket.socket], None], end: socket.socket) -> None:
        try:
            work(end)
        except OSError as error:
            self._failures.append(f"{work.__name__} after {self.received >> 20} MiB: {error!r}")

    def _send(self, sender: socket.socket) -> None:
        while not self._is_over.is_set():
            sender.sendall(_CHUNK)
            self._sent += len(_CHUNK)
            self._sums["sent"] = crc32(_CHUNK, self._sums["sent"])
        sender.shutdown(socket.SHUT_WR)

    def _receive(self, receiver: socket.socket) -> None:
        while data := receiver.recv(_LARGEST_READ):
            self._sums["received"] = crc32(data, self._sums["received"])
            self.received += len(data)

    def wait_for(self, amount: int = ENOUGH) -> None:
        """Wait until so many more bytes have come."""
        goal, deadline = self.received + amount, time.monotonic() + PATIENCE
        while self.received < goal:
            assert not self._failures, self._failures
            assert time.monotonic() < deadline, f"it stands at {self.received >> 20} MiB"
            time.sleep(_POLL)

    def finish(self) -> None:
        """End it. All bytes that were sent must have come, unchanged."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not self._failures, self._failures
        assert self.received == self._sent
        assert self._sums["sent"] == self._sums["received"]

    def abandon(self) -> None:
        """End it without a look at what came."""
        self._is_over.set()


class GuestStream:
    """Datagrams from a guest to a client that spoke once: the client never answers."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._is_over = threading.Event()
        self._last = 0
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        while not self._is_over.wait(_INTERVAL):
            self._last = self._exchange.send_from_guest()

    def wait_for(self, amount: int = _ENOUGH_DATAGRAMS) -> None:
        """Wait until the client has heard so many datagrams that are sent from now on."""
        began = self._last
        for _ in range(amount):
            assert self._exchange.receive_at_client(began + 1), "the stream has ended"
            began = self._exchange.heard[-1][0]

    def finish(self) -> None:
        """End it."""
        self._is_over.set()
        self._thread.join()


@contextmanager
def transfer(
    sender: socket.socket, receiver: socket.socket, enough: int = ENOUGH
) -> Iterator[Transfer]:
    """A transfer that runs when the block begins, and must end whole after it."""
    made = Transfer(sender, receiver)
    try:
        made.wait_for(enough)
        yield made
        made.wait_for(enough)
        made.finish()
    finally:
        made.abandon()


@contextmanager
def guest_stream(exchange: Exchange) -> Iterator[GuestStream]:
    """A stream that runs when the block begins, and must go on at its end."""
    made = GuestStream(exchange)
    try:
        made.wait_for()
        yield made
        made.wait_for()
    finally:
        made.finish()

"""A download from a guest, slow enough that something can happen in its middle.

The guest's echo port is its source: what the client sends comes back.
"""

import hashlib
import socket
import threading
import time
from collections.abc import Callable

from tests.lab.namespace import Namespace

_CHUNK = 64 << 10
_PAUSE = 0.02
_PATIENCE = 300.0
_POLL = 0.02


class Download:
    """It runs in threads of its own from the moment that it is made."""

    def __init__(self, namespace: Namespace, address: str, port: int, size: int) -> None:
        """Begin it from a namespace. Raises OSError."""
        self.size = size
        self.received = 0
        self.failure = ""
        self._sums = hashlib.sha256(), hashlib.sha256()
        self._connection = namespace.call(lambda: socket.socket(socket.AF_INET))
        self._connection.settimeout(_PATIENCE)
        try:
            self._connection.connect((address, port))
        except OSError:
            self._connection.close()
            raise
        self.client_port = int(self._connection.getsockname()[1])
        self._threads = [
            threading.Thread(target=self._noting, args=(work,), daemon=True)
            for work in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    def _noting(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self.failure = f"{type(error).__name__}: {error} after {self.received} bytes"

    def _send(self) -> None:
        for start in range(0, self.size, _CHUNK):
            data = hashlib.shake_128(str(start).encode()).digest(min(_CHUNK, self.size - start))
            self._sums[0].update(data)
            self._connection.sendall(data)
            time.sleep(_PAUSE)

    def _receive(self) -> None:
        while self.received < self.size:
            data = self._connection.recv(_CHUNK)
            if not data:
                raise ConnectionResetError("closed by the peer")
            self._sums[1].update(data)
            self.received += len(data)

    def wait_for(self, amount: int) -> None:
        """Wait until so many bytes have come. Raises TimeoutError, with the reason."""
        deadline = time.monotonic() + _PATIENCE
        while self.received < amount:
            if self.failure or time.monotonic() > deadline:
                raise TimeoutError(self.failure or f"it stands at {self.received} bytes")
            time.sleep(_POLL)

    def finish(self) -> bool:
        """Wait for its end; whether all bytes came back unchanged. Raises TimeoutError."""
        self.wait_for(self.size)
        for thread in self._threads:
            thread.join(_PATIENCE)
        return self._sums[0].digest() == self._sums[1].digest()

    def close(self) -> None:
        """Close its connection, in any state."""
        self._connection.close()

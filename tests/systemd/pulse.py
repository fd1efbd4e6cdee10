"""A client that connects all the time, and how long it was without an answer."""

import contextlib
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

from tests.lab.namespace import Namespace

_INTERVAL = 0.03
#: Seconds without an answer after which an attempt has failed. It is longer than what a guest under
#: TCG needs on a busy machine.
_PATIENCE = 2.0
#: Seconds. A firewall that is reloaded may let packets in before it makes its own rules again.
_STEADY = 4.0
_LONGEST_WAIT = 120.0


class _Attempt(NamedTuple):
    begun: float
    ended: float
    is_answered: bool


class Pulse:
    """A context manager: a thread connects, again and again, without waiting for the answers."""

    def __init__(self, client: Namespace, address: str, port: int) -> None:
        self._place = (address, port)
        self._attempts: list[_Attempt] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=lambda: client.call(self._connect_until_end))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.set()
        self._thread.join()

    def is_answered(self) -> bool:
        """Whether the last attempt that has ended was answered."""
        return bool(self._attempts) and self._attempts[-1].is_answered

    def healed_after(self, moment: float) -> float:
        """Wait until clients are answered, and stay so; return how many seconds that took.

        It is 0 if all attempts since `moment`, by the monotonic clock, were answered. Raises
        TimeoutError.
        """
        deadline = time.monotonic() + _LONGEST_WAIT
        while True:
            since = sorted(attempt for attempt in self._attempts if attempt.begun >= moment)
            failed = [attempt.begun for attempt in since if not attempt.is_answered]
            last_failure = max(failed, default=moment)
            steady = [one for one in since if one.begun > last_failure]
            if steady and steady[-1].begun - steady[0].begun >= _STEADY + _PATIENCE:
                return steady[0].ended - moment if failed else 0.0
            if time.monotonic() > deadline:
                raise TimeoutError(f"not steady; {len(failed)} of {len(since)} attempts failed")
            time.sleep(_INTERVAL)

    def _connect_until_end(self) -> None:
        due = time.monotonic()
        with selectors.DefaultSelector() as waiting:
            while not self._ends.is_set():
                if time.monotonic() >= due:
                    due += _INTERVAL
                    self._begin(waiting)
                for key, _ in waiting.select(_INTERVAL):
                    assert isinstance(key.fileobj, socket.socket)
                    self._end(waiting, key.fileobj, key.data, is_answered=_has_answer(key.fileobj))
                self._give_up_old(waiting)
            for key in list(waiting.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()

    def _begin(self, waiting: selectors.BaseSelector) -> None:
        begun = time.monotonic()
        endpoint = socket.socket()
        endpoint.setblocking(False)
        try:
            endpoint.connect(self._place)
        except BlockingIOError:
            waiting.register(endpoint, selectors.EVENT_READ, begun)
        except OSError:
            endpoint.close()
            self._attempts.append(_Attempt(begun, time.monotonic(), False))

    def _give_up_old(self, waiting: selectors.BaseSelector) -> None:
        oldest = time.monotonic() - _PATIENCE
        for key in list(waiting.get_map().values()):
            if key.data < oldest:
                assert isinstance(key.fileobj, socket.socket)
                self._end(waiting, key.fileobj, key.data, is_answered=False)

    def _end(
        self,
        waiting: selectors.BaseSelector,
        endpoint: socket.socket,
        begun: float,
        *,
        is_answered: bool,
    ) -> None:
        waiting.unregister(endpoint)
        with contextlib.suppress(OSError):
            endpoint.close()
        self._attempts.append(_Attempt(begun, time.monotonic(), is_answered))


def _has_answer(endpoint: socket.socket) -> bool:
    try:
        return bool(endpoint.recv(4096))
    except OSError:
        return False

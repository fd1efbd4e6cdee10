"""Follows the changes of all keys with a prefix, until something ends it."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress

from cgw_hooks.host.etcd.connection import MOST_BYTES, open_socket
from cgw_hooks.host.etcd.faults import OUT_OF_RANGE, Refusal, described, joined
from cgw_hooks.host.etcd.requests import FAULTS, Requests
from cgw_hooks.host.etcd.values import KeyValue, key_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cgw_hooks.core.node_config import Endpoint, Registry

#: Seconds without a change after which the member is asked whether it works.
_IDLE_SECONDS = 3.0
_CHECK_SECONDS = 3.0
#: Seconds for each member that is asked for a watch: one that is down must not delay the others.
_OPEN_SECONDS = 2.0
_CHUNK = 1 << 16


class Watch:
    """Iterating gives pairs: a revision, and the changes since the one before, in their order.

    Everything up to that revision has then been given, so that another watch can start at the next
    one. The members are tried in the order of the config. The iteration ends after ``close``, and
    else with ``RegistryError``: the member is gone, frozen or without a leader, or the start
    revision is compacted. Then list, and watch again: etcd does not say whether its revision went
    back (a restored backup), and waits in silence for a revision of the future.
    """

    def __init__(self, config: Registry, prefix: str, start_revision: int) -> None:
        self._config, self._prefix, self._start_revision = config, prefix, start_revision
        self._requests = Requests(config)
        self._stream: socket.socket | None = None
        self._is_closed = False

    def close(self) -> None:
        """End the iteration; another thread may do this."""
        self._is_closed = True
        stream = self._stream
        if stream:
            with suppress(OSError):  # the member was faster
                # That of the TLS socket would also change what the iterating thread uses.
                socket.socket.shutdown(stream, socket.SHUT_RDWR)

    def __iter__(self) -> Iterator[tuple[int, list[KeyValue]]]:
        opened = self._open()
        if opened is None:
            return
        endpoint, stream = opened
        try:
            yield from _batches(self._lines(endpoint, stream))
        except FAULTS as error:
            if not self._is_closed:
                raise described(endpoint, error, self._config) from error
        finally:
            self._stream = None
            stream.close()
            self._requests.close()

    def _open(self) -> tuple[Endpoint, socket.socket] | None:
        """Ask the members in their order. None: the watch was closed meanwhile."""
        errors = []
        for endpoint in self._config.endpoints:
            if self._is_closed:
                return None
            try:
                self._check(endpoint, _OPEN_SECONDS)
                return endpoint, self._request(endpoint)
            except FAULTS as error:
                self._requests.close()
                errors.append(described(endpoint, error, self._config))
        if self._is_closed:
            return None
        raise joined(errors)

    def _check(self, endpoint: Endpoint, seconds: float) -> None:
        """Read through this member: a stuck one keeps a watch open, and is silent."""
        end = time.monotonic() + seconds
        body: dict[str, Any] = {**key_range(self._prefix), "limit": 1, "keys_only": True}
        self._requests.ask_one(endpoint, "/v3/kv/range", body, end, end)

    def _request(self, endpoint: Endpoint) -> socket.socket:
        create = {
            **key_range(self._prefix),
            "start_revision": str(self._start_revision),
            "progress_notify": True,
            # etcd then splits an answer beyond 2 MiB; it may hold the changes of 1,000 revisions.
            "fragment": True,
        }
        body = json.dumps({"create_request": create})
        host = str(endpoint).partition("//")[2]
        headers = {"Host": host, **self._requests.headers(), "Content-Length": str(len(body))}
        # In HTTP/1.0 an answer is not chunked: it is lines of JSON until the connection ends.
        lines = ["POST /v3/watch HTTP/1.0", *(f"{k}: {v}" for k, v in headers.items()), "", body]
        stream = open_socket(endpoint, self._config, time.monotonic() + _OPEN_SECONDS)
        try:
            self._stream = stream
            if self._is_closed:
                self.close()
            stream.settimeout(_IDLE_SECONDS)
            stream.sendall("\r\n".join(lines).encode())
        except BaseException:
            stream.close()
            raise
        return stream

    def _lines(self, endpoint: Endpoint, stream: socket.socket) -> Iterator[bytes]:
        parts: list[bytes] = []
        while True:
            try:
                part = stream.recv(_CHUNK)
            except TimeoutError as error:
                if error.errno:  # ETIMEDOUT: nothing acknowledges TCP's keepalive packets
                    raise
                self._check(endpoint, _CHECK_SECONDS)
                continue
            if not part:
                raise ConnectionError("the member has ended the watch")
            parts.append(part)
            if b"\n" in part:
                *lines, rest = b"".join(parts).split(b"\n")
                yield from lines
                parts = [rest]
            elif len(parts) * _CHUNK > MOST_BYTES:
                raise ValueError("it sends too much")


def _batches(lines: Iterator[bytes]) -> Iterator[tuple[int, list[KeyValue]]]:
    """Read etcd's WatchResponses. Only the last of a revision's fragments completes it."""
    status = int(next(lines).split()[1])
    if status != 200:  # noqa: PLR2004
        raise ConnectionError(f"the watch is refused with HTTP status {status}")
    while next(lines).strip():
        pass
    held: list[KeyValue] = []
    for line in lines:
        answer = json.loads(line)
        if "error" in answer:
            raise Refusal.of(status, line)
        result = answer["result"]
        if result.get("canceled"):
            reason = result.get("cancel_reason") or f"compacted at {result['compact_revision']}"
            raise Refusal(OUT_OF_RANGE, f"the watch is canceled: {reason}")
        for event in result.get("events", ()):
            change = KeyValue.of(event["kv"])
            held.append(change._replace(value=None) if event.get("type") == "DELETE" else change)
        if result.get("created"):
            continue
        if not held:  # a notice of progress
            yield int(result["header"]["revision"]), []
            continue
        last = held[-1].modified
        ready = [e for e in held if e.modified < last] if result.get("fragment") else held
        held = held[len(ready) :]
        if ready:
            yield ready[-1].modified, ready

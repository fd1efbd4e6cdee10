"""A watch as HTTP: its request, and the answer, which comes piece by piece and does not end.

In HTTP/1.0 an answer is not chunked: it is lines of JSON until the connection ends.
"""

from __future__ import annotations

import json

from cgw_hooks.core.etcd.faults import OK, OUT_OF_RANGE, Refusal
from cgw_hooks.core.etcd.values import KeyValue, key_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from cgw_hooks.core.node_config import Endpoint

#: Bytes of one line, at most.
_MOST_BYTES = 16 << 20


def request(endpoint: Endpoint, headers: dict[str, str], prefix: str, start_revision: int) -> bytes:
    """Ask for all changes of keys with this prefix, from this revision on."""
    create = {
        **key_range(prefix),
        "start_revision": str(start_revision),
        "progress_notify": True,
        # etcd then splits an answer beyond 2 MiB; it may hold the changes of 1,000 revisions.
        "fragment": True,
    }
    body = json.dumps({"create_request": create})
    host = str(endpoint).partition("//")[2]
    headers = {"Host": host, **headers, "Content-Length": str(len(body))}
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(["POST /v3/watch HTTP/1.0", *lines, "", body]).encode()


def batches(pieces: Iterable[bytes]) -> Iterator[tuple[int, list[KeyValue]]]:
    """Read the answer; yield pairs of a revision and the changes up to it.

    Only the last of a revision's fragments completes it. Raises ``Refusal``, and what
    ``faults.NOT_ETCD`` names.
    """
    held: list[KeyValue] = []
    for result in _results(_lines(pieces)):
        held += map(_change, result.get("events", ()))
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


def _results(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """Yield etcd's WatchResponses."""
    status = int(next(lines).split()[1])
    if status != OK:
        raise Refusal(-1, f"the watch, with HTTP status {status}")
    while next(lines).strip():
        pass  # a header
    for line in lines:
        answer = json.loads(line)
        if "error" in answer:
            raise Refusal.of(status, line)
        result = answer["result"]
        if result.get("canceled"):
            reason = result.get("cancel_reason") or f"compacted at {result['compact_revision']}"
            raise Refusal(OUT_OF_RANGE, f"the watch is canceled: {reason}")
        yield result


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []
    size = 0
    for piece in pieces:
        begun.append(piece)
        size += len(piece)
        if b"\n" in piece:
            *lines, rest = b"".join(begun).split(b"\n")
            yield from lines
            begun, size = [rest], len(rest)
        elif size > _MOST_BYTES:
            raise ValueError("it sends too much")


def _change(event: dict[str, Any]) -> KeyValue:
    found = KeyValue.of(event["kv"])
    return found._replace(value=None) if event.get("type") == "DELETE" else found

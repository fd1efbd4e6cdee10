"""Reads and writes keys of etcd. It knows nothing of guests."""

from __future__ import annotations

import time

from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.connection import AnswerTooLong
from cgw_hooks.host.etcd.faults import OUT_OF_RANGE, described
from cgw_hooks.host.etcd.requests import FAULTS, Requests
from cgw_hooks.host.etcd.values import (
    Committed,
    Delete,
    Found,
    KeyValue,
    Member,
    Put,
    Unchanged,
    base64,
    key_range,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from cgw_hooks.core.node_config import Endpoint, Registry

_SECONDS = 2.0
_PAGE = 500
#: Characters of all values that one list may have.
_MOST_LISTED = 64 << 20
#: A registry with this many revisions, all of them still there, is never compacted.
_LONG_HISTORY = 10_000
_QUOTA = b"\netcd_server_quota_backend_bytes "


class Etcd:
    """A client for one thread, which blocks for at most ``seconds``.

    All methods raise ``RegistryError``.
    """

    def __init__(self, config: Registry) -> None:
        self._config = config
        self._requests = Requests(config)

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        self._requests.close()

    def list(self, prefix: str, *, seconds: float = 10.0) -> Found:
        """Read all keys with this prefix, as most members had them at one revision."""
        end = time.monotonic() + seconds
        listed, more, size, limit = Found(0, "", []), True, 0, _PAGE
        while more:
            after = listed.values[-1].key if listed.values else ""
            body = {**key_range(prefix, after), "limit": limit, "revision": str(listed.revision)}
            try:
                page, more = self._requests.ask("/v3/kv/range", body, end - time.monotonic(), _page)
            except AnswerTooLong:
                if limit == 1:
                    raise
                limit = max(limit // 8, 1)  # a few huge values must not keep the others away
                continue
            limit = min(limit * 2, _PAGE)
            size += sum(len(value.value or "") for value in page.values)
            if size > _MOST_LISTED:
                raise RegistryError(prefix, f"its values have over {_MOST_LISTED >> 20} MiB")
            listed = page._replace(
                revision=listed.revision or page.revision, values=listed.values + page.values
            )
        return listed

    def commit(
        self,
        writes: Sequence[Put | Delete],
        if_unchanged: Sequence[Unchanged] = (),
        else_read: Sequence[str] = (),
        *,
        seconds: float = _SECONDS,
    ) -> Committed:
        """Carry out all writes or none. An error with ``is_unknown`` may be either.

        At most 128 of each kind (etcd's --max-txn-ops), and no key twice in ``writes``.
        """
        body = {
            "compare": [condition.compare() for condition in if_unchanged],
            "success": [write.operation() for write in writes],
            "failure": [{"requestRange": {"key": base64(key)}} for key in else_read],
        }
        return self._requests.ask("/v3/kv/txn", body, seconds, _committed, is_write=True)

    def grant(self, ttl: int) -> int:
        """Make a lease of ``ttl`` seconds; return its id."""
        body = {"TTL": str(ttl)}
        return self._requests.ask("/v3/lease/grant", body, _SECONDS, lambda a: int(a["ID"]))

    def keep_alive(self, lease: int) -> bool:
        """Renew a lease; return whether it still was there."""
        path, body = "/v3/lease/keepalive", {"ID": str(lease)}
        return self._requests.ask(path, body, _SECONDS, lambda a: "TTL" in a["result"])

    def is_history_whole(self) -> bool:
        """Whether the history is long, and nothing of it was ever compacted."""

        def is_long(answer: dict[str, Any]) -> bool:
            return bool(answer) and int(answer["header"]["revision"]) > _LONG_HISTORY

        body = {"key": base64(f"{self._config.prefix}/"), "revision": "1"}
        return self._requests.ask("/v3/kv/range", body, _SECONDS, is_long, unless=OUT_OF_RANGE)

    def members(self) -> Sequence[Member | RegistryError]:
        """Ask each endpoint of the config for its state."""
        return list(map(self._member, self._config.endpoints))

    def _member(self, endpoint: Endpoint) -> Member | RegistryError:
        end = time.monotonic() + _SECONDS
        try:
            found = self._requests.ask_one(endpoint, "/v3/maintenance/status", {}, end, end)
            connection = self._requests.connect(endpoint, end)
            _, metrics = connection.ask("/metrics", None, {}, end)
            return _member(endpoint, found, metrics)
        except FAULTS as error:
            self.close()
            return described(endpoint, error, self._config)
        except RegistryError as error:
            return error


def _page(answer: dict[str, Any]) -> tuple[Found, bool]:
    return Found.of(answer), bool(answer.get("more"))


def _committed(answer: dict[str, Any]) -> Committed:
    succeeded = bool(answer.get("succeeded"))
    reads = [] if succeeded else answer.get("responses", [])
    values = [KeyValue.of(v) for read in reads for v in read["response_range"].get("kvs", ())]
    return Committed(succeeded, int(answer["header"]["revision"]), values)


def _member(endpoint: Endpoint, found: dict[str, Any], metrics: bytes) -> Member:
    quota = metrics.partition(_QUOTA)[2].partition(b"\n")[0]
    # An alarm is the error "memberID:NUMBER alarm:NOSPACE ".
    words = [word for error in found.get("errors", ()) for word in error.split()]
    return Member(
        endpoint,
        size=int(found["dbSize"]),
        quota=int(float(quota)) if quota else None,
        # Each member may have raised the same one.
        alarms=tuple(sorted({w[len("alarm:") :] for w in words if w.startswith("alarm:")})),
        has_leader="leader" in found,
    )

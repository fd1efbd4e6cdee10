"""Keys, values, events and operations of etcd, and their form in JSON.

etcd's gateway has bytes as base64 and 64-bit numbers as texts, and leaves out false, 0 and empty.
"""

from __future__ import annotations

from base64 import b64decode, b64encode

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cgw_hooks.core.node_config import Endpoint

#: Bytes of a value that are read; what is beyond them is cut off. etcd allows 1.5 MiB, so that a
#: few hostile values could fill the memory.
LONGEST_VALUE = 256 << 10
_QUOTA = b"\netcd_server_quota_backend_bytes "


class KeyValue(NamedTuple):
    """A key, its value, and the revisions of its first and its last change.

    A byte that is not UTF-8 is a lone surrogate (``surrogateescape``). In a watch, the value of a
    key that was deleted is None.
    """

    key: str
    value: str | None
    created: int
    modified: int

    @classmethod
    def of(cls, found: dict[str, Any]) -> KeyValue:
        """Parse etcd's KeyValue. Raises ``ValueError``, ``KeyError``, ``TypeError``."""
        value = b64decode(found.get("value", ""))[:LONGEST_VALUE]
        revisions = int(found.get("create_revision", 0)), int(found["mod_revision"])
        return cls(_decoded(b64decode(found["key"])), _decoded(value), *revisions)


class Found(NamedTuple):
    """What a read found, the revision of the registry, and the id of the etcd cluster."""

    revision: int
    cluster: str
    values: list[KeyValue]

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Found:
        """Parse etcd's RangeResponse. Raises as ``KeyValue.of``."""
        header = answer["header"]
        values = [KeyValue.of(found) for found in answer.get("kvs", ())]
        return cls(int(header["revision"]), str(header["cluster_id"]), values)


class Committed(NamedTuple):
    """The outcome of a commit; ``values`` are those of ``else_read`` if it did not succeed."""

    succeeded: bool
    revision: int
    values: list[KeyValue]

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Committed:
        """Parse etcd's TxnResponse. Raises as ``KeyValue.of``."""
        succeeded = bool(answer.get("succeeded"))
        reads = [] if succeeded else answer.get("responses", [])
        values = [KeyValue.of(v) for read in reads for v in read["response_range"].get("kvs", ())]
        return cls(succeeded, int(answer["header"]["revision"]), values)


class Member(NamedTuple):
    """What a member says of itself; ``size`` and ``quota`` (None: not known) are bytes."""

    endpoint: Endpoint
    size: int
    quota: int | None
    alarms: tuple[str, ...]
    has_leader: bool

    @classmethod
    def of(cls, endpoint: Endpoint, status: dict[str, Any], metrics: bytes) -> Member:
        """Parse etcd's StatusResponse, and what Prometheus reads. Raises as ``KeyValue.of``."""
        quota = metrics.partition(_QUOTA)[2].partition(b"\n")[0]
        # An alarm is the error "memberID:NUMBER alarm:NOSPACE ".
        words = [word for error in status.get("errors", ()) for word in error.split()]
        return cls(
            endpoint,
            size=int(status["dbSize"]),
            quota=int(float(quota)) if quota else None,
            # Each member may have raised the same one.
            alarms=tuple(sorted({w[len("alarm:") :] for w in words if w.startswith("alarm:")})),
            has_leader="leader" in status,
        )


class Put(NamedTuple):
    """Write a key; with ``lease``, it goes when the lease ends."""

    key: str
    value: str
    lease: int = 0

    def operation(self) -> dict[str, Any]:
        """Return etcd's RequestOp."""
        content = {"key": base64(self.key), "value": base64(self.value), "lease": str(self.lease)}
        return {"requestPut": content}


class Delete(NamedTuple):
    """Delete a key; it need not be there."""

    key: str

    def operation(self) -> dict[str, Any]:
        """Return etcd's RequestOp."""
        return {"requestDeleteRange": {"key": base64(self.key)}}


class Unchanged(NamedTuple):
    """A condition: the last change of the key was this revision (0: the key is not there)."""

    key: str
    modified: int

    def compare(self) -> dict[str, str]:
        """Return etcd's Compare."""
        key = {"key": base64(self.key), "target": "MOD", "result": "EQUAL"}
        return {**key, "mod_revision": str(self.modified)}


def key_range(prefix: str, after: str = "") -> dict[str, str]:
    """Return the range of all keys with this prefix, or of those after one of them."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return {"key": base64(f"{after}\0" if after else prefix), "range_end": base64(end)}


def base64(text: str) -> str:
    """Encode a key or a value."""
    return b64encode(text.encode(errors="surrogateescape")).decode()


def _decoded(content: bytes) -> str:
    return content.decode(errors="surrogateescape")

"""What etcd is asked, and how the answer is read.

Reading an answer raises what ``faults.NOT_ETCD`` names, if it is not one of etcd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from cgw_hooks.core.etcd.values import Committed, base64, key_range

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cgw_hooks.core.etcd.values import Delete, Put, Unchanged

Value = TypeVar("Value")

#: A registry with this many revisions, all of them still there, is never compacted.
_LONG_HISTORY = 10_000


class Question(NamedTuple, Generic[Value]):
    """A request, and what reads the answer to it.

    A question with ``is_write`` must not be asked twice: after a timeout it may still be carried
    out, and a second copy could be carried out after later changes.
    """

    path: str
    body: dict[str, Any]
    read: Callable[[dict[str, Any]], Value]
    is_write: bool = False


def probe(prefix: str) -> Question[None]:
    """Read as a member can that works, and has a leader."""
    body = {**key_range(prefix), "limit": 1, "keys_only": True}
    return Question("/v3/kv/range", body, lambda _: None)


def commit(
    writes: Sequence[Put | Delete], if_unchanged: Sequence[Unchanged], else_read: Sequence[str]
) -> Question[Committed]:
    """Carry out all writes or none."""
    body = {
        "compare": [condition.compare() for condition in if_unchanged],
        "success": [write.operation() for write in writes],
        "failure": [{"requestRange": {"key": base64(key)}} for key in else_read],
    }
    return Question("/v3/kv/txn", body, Committed.of, is_write=True)


def grant(ttl: int) -> Question[int]:
    """Make a lease of ``ttl`` seconds; its id."""
    return Question("/v3/lease/grant", {"TTL": str(ttl)}, lambda answer: int(answer["ID"]))


def keep_alive(lease: int) -> Question[bool]:
    """Renew a lease; whether it still was there."""
    return Question(
        "/v3/lease/keepalive", {"ID": str(lease)}, lambda answer: "TTL" in answer["result"]
    )


def history(prefix: str) -> Question[bool]:
    """Whether the history is long. ``Compacted`` is raised if its beginning is not there."""
    body = {"key": base64(f"{prefix}/"), "revision": "1"}
    return Question(
        "/v3/kv/range", body, lambda answer: int(answer["header"]["revision"]) > _LONG_HISTORY
    )


def status() -> Question[dict[str, Any]]:
    """Ask a member for its state, which ``Member.of`` reads."""
    return Question("/v3/maintenance/status", {}, lambda answer: answer)


def token(user: str, password: str) -> Question[str]:
    """Get a token, for the header ``Authorization``."""

    def read(answer: dict[str, Any]) -> str:
        found = str(answer["token"])
        if not found.isascii() or not found.isprintable():
            raise ValueError("a token that is no HTTP header")
        return found

    return Question("/v3/auth/authenticate", {"name": user, "password": password}, read)


def headers(token_: str) -> dict[str, str]:
    """Return the headers of a question; without a token, it is empty."""
    found = {
        "Content-Type": "application/json",
        # A member without a leader then refuses at once (rpctypes.MetadataRequireLeaderKey).
        "Grpc-Metadata-hasleader": "true",
    }
    return {**found, "Authorization": token_} if token_ else found

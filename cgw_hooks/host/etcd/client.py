"""Reads and writes keys of etcd. It knows nothing of guests."""

from __future__ import annotations

from cgw_hooks.core.etcd import questions
from cgw_hooks.core.etcd.faults import AnswerTooLong, Compacted
from cgw_hooks.core.etcd.listing import Listing
from cgw_hooks.core.etcd.values import Member
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.connection import Deadline
from cgw_hooks.host.etcd.members import Members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cgw_hooks.core.etcd.values import Committed, Delete, Found, Put, Unchanged
    from cgw_hooks.core.node_config import Endpoint, Registry

_SECONDS = 2.0


class Etcd:
    """A client for one thread, which blocks for at most ``seconds``.

    All methods raise ``RegistryError``.
    """

    def __init__(self, config: Registry) -> None:
        self._config = config
        self._members = Members(config)

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        self._members.close()

    def list(self, prefix: str, *, seconds: float = 10.0) -> Found:
        """Read all keys with this prefix, as most members had them at one revision."""
        listing, deadline = Listing(prefix), Deadline(seconds)
        while not listing.is_complete:
            try:
                page, is_more = self._members.ask(listing.next_page(), deadline)
                listing.add(page, is_more=is_more)
            except AnswerTooLong:
                if not listing.shorten():
                    raise
        return listing.found

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
        question = questions.commit(writes, if_unchanged, else_read)
        return self._members.ask(question, Deadline(seconds))

    def grant(self, ttl: int) -> int:
        """Make a lease of ``ttl`` seconds; return its id."""
        return self._members.ask(questions.grant(ttl), Deadline(_SECONDS))

    def keep_alive(self, lease: int) -> bool:
        """Renew a lease; return whether it still was there."""
        return self._members.ask(questions.keep_alive(lease), Deadline(_SECONDS))

    def is_history_whole(self) -> bool:
        """Whether the history is long, and nothing of it was ever compacted."""
        try:
            return self._members.ask(questions.history(self._config.prefix), Deadline(_SECONDS))
        except Compacted:
            return False

    def members(self) -> Sequence[Member | RegistryError]:
        """Ask each endpoint of the config for its state."""
        return list(map(self._member, self._config.endpoints))

    def _member(self, endpoint: Endpoint) -> Member | RegistryError:
        def ask(endpoint: Endpoint, deadline: Deadline) -> Member:
            status = self._members.ask_one(questions.status(), endpoint, deadline)
            connection = self._members.connect(endpoint, deadline)
            _, metrics = connection.ask("/metrics", None, {}, deadline)
            return Member.of(endpoint, status, metrics)

        try:
            return self._members.first(ask, [endpoint], Deadline(_SECONDS))
        except RegistryError as error:
            return error

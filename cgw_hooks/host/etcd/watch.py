"""Follows the changes of all keys with a prefix, until something ends it."""

from __future__ import annotations

from cgw_hooks.core.etcd.changes import batches, request
from cgw_hooks.core.etcd.faults import described
from cgw_hooks.core.etcd.questions import probe
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.connection import FAULTS, Deadline
from cgw_hooks.host.etcd.members import Members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.etcd.values import KeyValue
    from cgw_hooks.core.node_config import Endpoint, Registry
    from cgw_hooks.host.etcd.connection import Connection

#: Seconds without a change after which the member is asked whether it works.
_IDLE_SECONDS = 3.0
_CHECK_SECONDS = 3.0
#: Seconds for each member that is asked for a watch: one that is down must not delay the others.
_OPEN_SECONDS = 2.0


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
        #: The one is asked for the watch; the other whether a silent watch's member works.
        self._members, self._checked = Members(config), Members(config)
        self._stream: Connection | None = None
        self._is_closed = False

    def close(self) -> None:
        """End the iteration; another thread may do this."""
        self._is_closed = True
        if stream := self._stream:
            stream.shut_down()

    def __iter__(self) -> Iterator[tuple[int, list[KeyValue]]]:
        endpoints = self._config.endpoints
        try:
            opened = Deadline(_OPEN_SECONDS * len(endpoints))
            stream = self._members.first(self._open, endpoints, opened)
            try:
                yield from batches(self._pieces(stream))
            except FAULTS as error:
                raise described(stream.endpoint, error, self._config) from error
        except RegistryError:
            if not self._is_closed:
                raise
        finally:
            self._members.close()
            self._checked.close()

    def _open(self, endpoint: Endpoint, deadline: Deadline) -> Connection:
        # A stuck member would keep a watch open, and be silent: so read through it first.
        self._members.ask_one(probe(self._prefix), endpoint, deadline)
        self._stream = stream = self._members.connect(endpoint, deadline)
        if self._is_closed:
            raise ConnectionError("the watch is closed")
        headers = self._members.headers()
        stream.send(request(endpoint, headers, self._prefix, self._start_revision), deadline)
        return stream

    def _pieces(self, stream: Connection) -> Iterator[bytes]:
        while True:
            piece = stream.receive(_IDLE_SECONDS)
            if not piece:
                self._checked.ask_one(
                    probe(self._prefix), stream.endpoint, Deadline(_CHECK_SECONDS)
                )
            yield piece

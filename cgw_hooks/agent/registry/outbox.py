"""What this node writes to the registry: its keys must say what its records say.

The records are the outbox. Whatever is lost on the way, or whose outcome is unknown, differs from
the records at the next look, and is written again.

A claim is admitted only if nobody has added ports since this node looked: each transaction that
adds some also writes one key, the serial, and compares its revision before.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from cgw_hooks.core.etcd.values import Delete, Put, Unchanged
from cgw_hooks.core.record import State
from cgw_hooks.core.registry_value import guest, value
from cgw_hooks.core.shared_ports import shared_ports
from cgw_hooks.errors import CgwError
from cgw_hooks.host.etcd.client import Etcd
from cgw_hooks.node import ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cgw_hooks.agent.registry.inbox import Ticket
    from cgw_hooks.core.node_config import Registry
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.registry_value import Keys
    from cgw_hooks.errors import PortConflict
    from cgw_hooks.node.registered import Registered

#: Guests whose keys one transaction writes: each may need several of its 128 operations.
_AT_ONCE = 40
_MOST_WRITES = 100
#: Seconds for which a conflict must last before a guest is refused: the owner may just be stopping.
_DOUBT_SECONDS = 0.1


class _Wanted(NamedTuple):
    """What this node must have in the registry for one guest."""

    text: str
    ports: tuple[PublishedPort, ...]
    #: The ports that a guest of another node owns.
    lost: ports.Lost
    #: The first of these conflicts.
    conflict: PortConflict | None
    is_started: bool


class Outbox:
    """Writes what differs. ``applied`` is told of guests of the view that were found changed."""

    def __init__(
        self,
        config: Registry,
        registered: Registered,
        applied: Callable[[set[str]], None],
        catch_up: Callable[[int], bool],
    ) -> None:
        #: The uuids of the guests whose keys may differ.
        self.dirty: set[str] = set()
        #: Until when (``time.monotonic()``) no entry is deleted that no other node has.
        self.keeps_until = 0.0
        self._etcd = Etcd(config)
        self._publisher = registered.publisher
        self._view = registered.view
        self._registered = registered
        self._applied = applied
        self._catch_up = catch_up
        self._tickets: dict[str, list[Ticket]] = {}
        self._in_doubt: dict[str, float] = {}

    @property
    def _keys(self) -> Keys:
        return self._view.keys

    def close(self) -> None:
        """Close the connection. The tickets that wait get no answer."""
        self._etcd.close()

    def add(self, uuid: str, ticket: Ticket | None = None) -> None:
        """Note that a guest's key may differ; ``ticket`` is answered once it does not."""
        self.dirty.add(uuid)
        if ticket:
            self._tickets.setdefault(uuid, []).append(ticket)

    def give_up_waiting(self, error: CgwError) -> None:
        """Tell those who wait that the registry does not answer. What is noted stays noted."""
        tickets, self._tickets = self._tickets, {}
        for waiting in tickets.values():
            for ticket in waiting:
                ticket.finish(error)

    def pending(self) -> dict[str, list[str]]:
        """Return the listening ports that the registry has not confirmed, by uuid."""
        found = {}
        for uuid in sorted(self.dirty):
            wanted, confirmed = self._wanted(uuid), self._confirmed(uuid)
            claims = [port.claim for port in wanted.ports if port.claim not in confirmed]
            if claims:
                found[uuid] = [str(claim) for claim in claims]
        return found

    def flush(self) -> None:
        """Write what differs. Raises ``RegistryError``; what is not written stays noted."""
        # Deletions are written by themselves: a full etcd refuses everything else.
        self.write([Delete(self._keys.guest(uuid, self._view.node)) for uuid in self._gone()])
        while self.dirty:
            waiting = sorted(self.dirty, key=lambda uuid: (uuid not in self._tickets, uuid))
            if not self._flush(waiting[:_AT_ONCE]):
                return

    def _gone(self) -> list[str]:
        """Return the guests of this node that publish nothing any more."""
        found = [uuid for uuid in sorted(self.dirty) if self._view.own(uuid)]
        return [u for u in found if not self._wanted(u).text and not self._must_keep(u)]

    def _must_keep(self, uuid: str) -> bool:
        """Whether a guest that has gone may have migrated: its new node may be about to say so."""
        if self._registered.has_moved(uuid):
            return True
        return time.monotonic() < self.keeps_until and self._view.remote(uuid) is None

    def _flush(self, uuids: Iterable[str]) -> bool:
        """Write the keys of some guests; return whether to go on at once."""
        claims: list[Put] = []
        others: list[Put | Delete] = []
        done: dict[str, CgwError | None] = {}
        for uuid in uuids:
            wanted = self._wanted(uuid)
            if wanted.lost and uuid in self._tickets and self._is_doubtful(uuid, wanted):
                continue
            write = self._write(uuid, wanted)
            if isinstance(write, Delete) and self._must_keep(uuid):
                if not self._registered.has_moved(uuid):
                    continue
                write = None  # it is noted again when it is overdue
            done[uuid] = wanted.conflict
            if write:
                is_claim = isinstance(write, Put) and self._is_claim(uuid, wanted)
                (claims if is_claim else others).append(write)  # type: ignore[arg-type]
            if wanted.is_started:
                others += map(Delete, self._left_over(uuid))
        self.write(others)
        if claims and not self._claim(claims):
            return False
        for uuid, refusal in done.items():
            self._finish(uuid, refusal)
        return bool(done) and bool(self.dirty)

    def write(self, writes: Sequence[Put | Delete]) -> None:
        """Write keys that add no ports. Raises ``RegistryError``."""
        for start in range(0, len(writes), _MOST_WRITES):
            some = writes[start : start + _MOST_WRITES]
            self._committed(some, self._etcd.commit(some).revision)

    def _claim(self, claims: list[Put]) -> bool:
        """Add ports, if no other node has added any since this one looked."""
        serial = Put(self._keys.serial, self._view.node)
        seen = Unchanged(serial.key, self._view.serial)
        done = self._etcd.commit([serial, *claims], [seen], [serial.key])
        if done.succeeded:
            self._committed([serial, *claims], done.revision)
            return True
        self._catch_up(max((found.modified for found in done.values), default=0))
        return False

    def _committed(self, writes: Iterable[Put | Delete], revision: int) -> None:
        changes = [
            (write.key, write.value if isinstance(write, Put) else None, revision, revision)
            for write in writes
        ]
        changed = self._view.apply(self._view.revision, changes)
        places = filter(None, (self._keys.guest_of(key) for key, *_ in changes))
        # Their event will find them in the view, and so change nothing.
        others = {uuid for uuid, node in places if node != self._view.node} & changed
        if others:
            self._applied(others)

    def _finish(self, uuid: str, refusal: CgwError | None) -> None:
        self.dirty.discard(uuid)
        self._in_doubt.pop(uuid, None)
        for ticket in self._tickets.pop(uuid, ()):
            ticket.finish(refusal)

    def _wanted(self, uuid: str) -> _Wanted:
        state = self._publisher.state
        records = [record for key in state.own_keys(uuid) if (record := state.peek(key))]
        lost: ports.Lost = {}
        for record in records:
            lost |= ports.lost(state, record.guest)
        shared = shared_ports(records, self._publisher.config)
        mine = tuple(port for port in shared if port not in lost)
        conflict = None
        for port, (holder, claim) in lost.items():
            if port in shared:
                conflict = ports.taken_by_guest(records[0].guest, claim, holder)
                break
        text = value(records[0].guest.name, mine) if mine else ""
        is_started = any(record.state is State.PUBLISHED for record in records)
        return _Wanted(text, mine, lost if conflict else {}, conflict, is_started)

    def _write(self, uuid: str, wanted: _Wanted) -> Put | Delete | None:
        own = self._view.own(uuid)
        key = self._keys.guest(uuid, self._view.node)
        if not wanted.text:
            return Delete(key) if own else None
        return None if own and own.value == wanted.text else Put(key, wanted.text)

    def _is_claim(self, uuid: str, wanted: _Wanted) -> bool:
        confirmed = self._confirmed(uuid)
        return any(port.claim not in confirmed for port in wanted.ports)

    def _confirmed(self, uuid: str) -> set[object]:
        own = self._view.own(uuid)
        try:
            return set(guest(uuid, own.value).claims) if own else set()
        except CgwError:
            return set()

    def _left_over(self, uuid: str) -> list[str]:
        """Return the keys of nodes that are not there: the guest has started here instead."""
        return [self._keys.guest(uuid, node) for node in self._view.nodes_gone(uuid)]

    def _is_doubtful(self, uuid: str, wanted: _Wanted) -> bool:
        """Read the owners' keys again; return whether the conflict is gone or too young."""
        for holder in {holder.uuid for holder, _ in wanted.lost.values()}:
            found = self._etcd.list(f"{self._keys.guests}{holder}/")
            if self._view.replace_guest(holder, found.values):
                self._applied({holder})
        if not self._wanted(uuid).lost:
            self._in_doubt.pop(uuid, None)
            return True  # to be looked at from the beginning
        since = self._in_doubt.setdefault(uuid, time.monotonic())
        return time.monotonic() - since < _DOUBT_SECONDS

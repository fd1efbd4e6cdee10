"""Publishes at this node what the registry names, and knows which guests are this node's own."""

from __future__ import annotations

import os
import time

from cgw_hooks.core import registry_value
from cgw_hooks.core.claim_index import ClaimIndex
from cgw_hooks.core.guest import REGISTRY, REMOTE, Guest, GuestKey
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import State
from cgw_hooks.errors import CgwError
from cgw_hooks.host import paths
from cgw_hooks.node import ports, reconcile
from cgw_hooks.sources import registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from cgw_hooks.core.record import Record
    from cgw_hooks.core.registry_view import View
    from cgw_hooks.node.publisher import Publisher
    from cgw_hooks.node.sync_log import SyncLog

#: If more guests have changed at once, all are decided as one set. One guest by itself takes about
#: as long as 30 guests of a set in which nothing else differs.
_MOST_SINGLE, _SHARE = 20, 30
#: Seconds after an outage for which a guest that has migrated stays published although no node
#: names it: by then each node that runs has told the registry of its guests.
_ARRIVAL_SECONDS = 30.0


class Registered:
    """The guests of the view, as this node publishes them."""

    def __init__(self, publisher: Publisher, view: View, log: SyncLog) -> None:
        self.publisher = publisher
        self.view = view
        self._log = log
        #: The uuids of this node's own guests whose key is something else.
        self._uuids: dict[GuestKey, str] = {}
        #: Whether the view names guests that have claimed ports of others.
        self._has_rivals = False
        #: The guests that have migrated from this node (see ``moves``).
        self._moved: set[GuestKey] = set()
        #: Since when the registry answers, in seconds since 1970; None if it does not.
        self.connected_since: float | None = None

    def apply(self, uuids: Collection[str] | None) -> None:
        """Make this node match the view; ``uuids`` None means all guests. Raises ``CgwError``."""
        config = self.publisher.config
        if config.registry is None:  # `cgw node down` has withdrawn them
            return
        most = max(_MOST_SINGLE, len(self.view.uuids()) // _SHARE)
        if uuids is None or len(uuids) > most:
            self._apply_all()
            return
        found = registry.guests(config, self.view, uuids)
        if any(self._is_contested(key, guest) for key, guest in found.items()):
            self._apply_all()
            return
        for key, guest in found.items():
            self._apply_one(key, guest)

    def _apply_all(self) -> None:
        found = registry.guests(self.publisher.config, self.view)
        rivals = self._rivals(found)
        self._has_rivals = bool(rivals)
        named = {key: guest for key, guest in (found | rivals).items() if guest}
        report = reconcile.sync(self.publisher, drivers=(), registered=named)
        self._log.write(report)
        self._note_all_moved(self.publisher.state.all()[0])

    def _rivals(
        self, found: dict[GuestKey, Guest | CgwError | None]
    ) -> dict[GuestKey, Guest | CgwError | None]:
        """Return the errors of guests of other nodes that have claimed ports of older entries.

        The agents never write such entries: a backup, a person or a foe has. Each node must come
        to the same end, so only the registry's own order counts.
        """
        index, rivals = ClaimIndex(), {}
        for key in sorted(found, key=lambda key: (self.view.created(key.id), key.id)):
            guest = found[key] or self._own_entry(key)
            if not isinstance(guest, Guest):
                continue
            for claim in guest.claims:
                for held, holder in index.overlapping(claim):
                    error = ports.taken_by_guest(guest, claim.common_with(held), holder)
                    rivals[key] = error
            if key not in rivals:
                for claim in guest.claims:
                    index.add(claim, guest)
        return {key: error for key, error in rivals.items() if found[key]}

    def _own_entry(self, key: GuestKey) -> Guest | None:
        """Return a guest of this node, with the ports that the registry has confirmed."""
        entry, state = self.view.own(key.id), self.publisher.state
        try:
            guest = registry_value.guest(key.id, entry.value) if entry else None
        except CgwError:
            return None
        own = next(filter(state.has, state.own_keys(key.id)), key)
        return guest._replace(key=own) if guest else None

    def _apply_one(self, key: GuestKey, found: Guest | CgwError | None) -> None:
        record = self.publisher.state.peek(key)
        if found is None and record and record.has_moved:
            self._moved.add(key)
            return
        if found is None:
            old = self.publisher.forget_remote(key)
            if old and old.translated:
                self._log.withdrawn(old)
        elif isinstance(found, CgwError):
            problem = Problem.of(found)
            if record is None or record.problem != problem:
                nameless = Guest(key, record.guest.name if record else key.id, uuid=key.id)
                self.publisher.note_problem(nameless, problem)
                self._log.problem(problem)
        elif not _is_same(record, found):
            self._log.published(self.publisher.publish_remote(found))

    def _is_contested(self, key: GuestKey, found: Guest | CgwError | None) -> bool:
        """Whether other guests of this node are concerned: theirs are, or were, the same ports."""
        state = self.publisher.state
        record = state.peek(key)
        guests = [record.guest] if record else []
        if found is None and (self._has_rivals or (record and self._is_configured(record.guest))):
            return True
        if isinstance(found, Guest):
            guests.append(found)
            if state.has(GuestKey(REMOTE, found.name)):
                return True
        own = {key, *state.own_keys(key.id)}
        claims = {claim for guest in guests for claim in guest.claims}
        return any(holder not in own for holder, _, _ in state.holders(claims))

    def _is_configured(self, guest: Guest) -> bool:
        """Whether an entry of the config or a file in ``guests.d`` may name this guest, too."""
        names = {entry.name for entry in self.publisher.config.remote_guests}
        uuids = {entry.uuid for entry in self.publisher.config.remote_guests}
        file = os.path.join(paths.guests_directory(), f"{guest.name}.xml")
        return guest.name in names or guest.uuid in uuids or os.path.exists(file)

    # -- this node's own guests --------------------------------------------------------------

    def has_records(self) -> bool:
        """Whether this node has records of guests of the registry."""
        keys = self.publisher.state.keys()
        return any(key.driver == REGISTRY for key in keys)

    def own_uuids(self) -> set[str]:
        """Return the uuids of all guests that have a record here."""
        records, _ = self.publisher.state.all()
        own = {key: record for key, record in records.items() if not key.is_remote}
        self._note_all_moved(records)
        self._uuids = {key: r.guest.uuid for key, r in own.items() if r.guest.uuid != key.id}
        return {record.guest.uuid for record in own.values() if record.guest.uuid}

    def is_own(self, uuid: str) -> bool:
        """Whether a guest has a record here, or an entry of this node in the registry."""
        state = self.publisher.state
        return self.view.own(uuid) is not None or any(map(state.has, state.own_keys(uuid)))

    def uuid_of(self, key: GuestKey) -> str:
        """Return the uuid of the guest whose record has changed, or has gone; empty if unknown."""
        if key.is_remote:
            self._note_moved(key)
            return ""
        record = self.publisher.state.peek(key)
        if record is None:
            return self._uuids.pop(key, key.id)
        if record.guest.uuid != key.id:
            self._uuids[key] = record.guest.uuid
        return record.guest.uuid

    # -- guests that have migrated to a node that the registry does not name yet --------------

    def has_moved(self, uuid: str) -> bool:
        """Whether a guest of this node has migrated, and the registry does not say where to."""
        record = self.publisher.state.peek(GuestKey(REGISTRY, uuid))
        return record is not None and record.has_moved and self.view.remote(uuid) is None

    def forget_overdue(self) -> set[str]:
        """Withdraw the guests that have migrated to no node that runs. Return their uuids."""
        if self.connected_since is None:
            return set()
        forgotten = set()
        for key in list(self._moved):
            record = self.publisher.state.peek(key)
            if record is None or not record.has_moved:
                self._moved.discard(key)
            elif time.time() > max(self.connected_since, record.since) + _ARRIVAL_SECONDS:
                self._moved.discard(key)
                self.publisher.forget_remote(key)
                self._log.withdrawn(record)
                forgotten.add(key.id)
        return forgotten

    def _note_all_moved(self, records: dict[GuestKey, Record]) -> None:
        self._moved = {key for key, record in records.items() if record.has_moved}

    def _note_moved(self, key: GuestKey) -> None:
        # To read all records of other nodes' guests would take long if there are many.
        if key.driver == REGISTRY and self.view.remote(key.id) is None:
            self._moved.add(key)


def _is_same(record: Record | None, guest: Guest) -> bool:
    return (
        record is not None
        and record.state is State.PUBLISHED
        and record.guest == guest
        and not record.has_moved
        and (record.problem is None or bool(record.withheld))
    )

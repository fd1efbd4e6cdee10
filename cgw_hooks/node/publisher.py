"""Publishes and withdraws the ports of one guest at a time.

Hook calls of guests that publish load this module: it must import little.
"""

from __future__ import annotations

import time

from cgw_hooks.core.record import Contents, Record, State, published
from cgw_hooks.host.state.lock import LockError
from cgw_hooks.node.guest_changes import GuestChanges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.problem import Problem


class Publisher(GuestChanges):
    """What this node publishes."""

    def reserve(self, guest: Guest, digest: str = "") -> None:
        """Reserve the guest's listening ports; add no NAT elements before it has started.

        Raises ``PortConflict``; then nothing has changed.
        """
        from cgw_hooks.node import ports  # not for a guest that stops

        with self.state.locked():
            old, is_damaged = self._old(guest.key)
            found = ports.node_listeners([guest])
            relatives = ports.refuse_conflict(self.state, guest)
            ports.refuse_taken(guest, found)
            overrides = ports.keys_of(relatives.remotes)
            record = Record(guest, State.RESERVED, time.time(), overrides=overrides, digest=digest)
            change = self._change(record, old, relatives.remotes, rebuild=is_damaged)
        self._finish(change)

    def publish(self, guest: Guest, *, refuse_taken: bool = False) -> Record:
        """Add the NAT elements of the guest's ports, and remove those of its former ports.

        A port that a listener of the node uses is withheld, with a problem in the record; with
        ``refuse_taken``, a guest that did not own it before is refused. Raises ``PortConflict``;
        then nothing has changed.
        """
        from cgw_hooks.node import ports  # not for a guest that stops

        with self.state.locked():
            old, is_damaged = self._old(guest.key)
            found = ports.node_listeners([guest])
            twins: list[Record] = []
            if old and old.is_current and old.guest.claims == guest.claims:
                remotes = self._records(old.overrides)
            else:
                remotes, twins = ports.refuse_conflict(self.state, guest)
                if refuse_taken:
                    ports.refuse_taken(guest, found)
            record = published(guest, old, time.time())
            lost = ports.lost(self.state, guest) if self.config.registry else ports.NOTHING
            record = record._replace(overrides=ports.keys_of(remotes))
            record = ports.withhold(record, found, lost)
            if old and old.overrides != record.overrides:
                remotes = self._records({*old.overrides, *record.overrides})
            # Even without a record, withheld ports may still have elements.
            unknown = is_damaged or (old is None and bool(record.withheld))
            change = self._change(record, old, remotes, twins, rebuild=unknown)
        self._finish(change)
        self.flows.end_older(record.translated)
        return record

    def withdraw(self, key: GuestKey, *, connections_end: bool) -> Record | None:
        """Remove the guest's NAT elements, and keep its claims until it is released.

        ``connections_end`` also deletes established TCP connections. Returns the former record.
        """
        try:
            with self.state.locked():
                old, is_damaged = self._old(key)
                lost = self._forget_damaged(key) if is_damaged else []
                if old is None or not old.may_have_elements:
                    self._note_stopped(old)
                    change = None
                else:
                    record = old._replace(state=State.STOPPED, since=time.time(), withheld=())
                    record = record._replace(problem=None)
                    change = self._change(record, old, self._records(old.overrides))
        except LockError:
            self._withdraw_without_lock(key, connections_end=connections_end)
            raise
        self.flows.end(lost, connections_end=connections_end)
        if change:
            self._finish(change, connections_end=connections_end)
        return old

    def release(self, key: GuestKey, *, connections_end: bool) -> Record | None:
        """Withdraw a guest's ports and release its claims. Returns the released record."""
        try:
            with self.state.locked():
                old, is_damaged = self._old(key)
                is_withdrawn = old is None or self._is_withdrawn(old)
                lost = self._forget_damaged(key) if is_damaged else []
                if is_withdrawn and not is_damaged:
                    self.state.remove(key, old)
        except LockError:
            self._withdraw_without_lock(key, connections_end=connections_end)
            raise
        self.flows.end(lost, connections_end=connections_end)
        if not is_withdrawn:
            old = self.withdraw(key, connections_end=connections_end)
            with self.state.locked():
                self.state.remove(key, self.state.peek(key))
        elif old and old.is_current and connections_end:
            # After stopped, only established TCP connections may be left.
            elsewhere = self._elsewhere(old)
            left = [
                p for p in old.guest.ports if p.protocol == "tcp" and p.translation not in elsewhere
            ]
            self.flows.end(left, connections_end=True, again=lambda: self._translated(key))
        return old

    def publish_remote(self, guest: Guest, *, has_moved: bool = False) -> Record:
        """Publish a guest that the registry names, unless it runs on this node as well.

        No guest of this node may have one of its ports (see ``ports.lost``). ``has_moved``: the
        registry does not name it yet (see ``moves``).
        """
        from cgw_hooks.node import ports

        with self.state.locked():
            old, is_damaged = self._old(guest.key)
            if has_moved and old and not old.has_moved:
                return old  # the registry has named it in the meantime
            record = published(guest, old, time.time())
            record = ports.withhold(record, ports.node_listeners([guest]))
            record = record._replace(has_moved=has_moved)
            own = self._own_records(guest.key)
            for local in own:
                if guest.key not in local.overrides:
                    overrides = tuple(sorted({*local.overrides, guest.key}))
                    self.state.write(local._replace(overrides=overrides), local)
            if any(local.translated for local in own):
                self.state.write(record, old)
                return record
            change = self._change(record, old, rebuild=is_damaged)
        self._finish(change)
        self.flows.end_older(record.translated)
        return record

    def forget_remote(self, key: GuestKey) -> Record | None:
        """Withdraw a guest that the registry no longer names. Returns its former record.

        It is unknown why: its TCP connections may continue elsewhere.
        """
        change = None
        with self.state.locked():
            old, is_damaged = self._old(key)
            lost = self._forget_damaged(key) if is_damaged else []
            own = self._own_records(key)
            if old and old.may_have_elements and not any(local.translated for local in own):
                record = old._replace(state=State.STOPPED, withheld=(), problem=None)
                change = self._change(record, old, own)
            else:
                self.state.remove(key, old)
        self.flows.end(lost, connections_end=False)
        if change:
            self._finish(change, connections_end=False)
            with self.state.locked():
                self.state.remove(key, self.state.peek(key))
        return old

    def _own_records(self, key: GuestKey) -> list[Record]:
        """Return the records of this node's guest with the uuid of a guest of the registry."""
        return self._records(self.state.own_keys(key.id))

    def note_problem(self, guest: Guest, problem: Problem) -> None:
        """Record for ``cgw status`` why a guest's ports are not published."""
        with self.state.locked():
            old = self.state.peek(guest.key)
            record = old or Record(guest._replace(ports=()), State.RESERVED, time.time())
            self.state.write(record._replace(problem=problem), old)

    def _withdraw_without_lock(self, key: GuestKey, *, connections_end: bool) -> None:
        """Close a stopped guest's ports although the lock cannot be taken.

        The record is not changed. In a folder that others can write to, it may be anybody's: it
        can close ports, but never open one.
        """
        old = self.state.peek(key)
        elsewhere = self._elsewhere(old) if old else set()
        gone = [p for p in old.translated if p.translation not in elsewhere] if old else []
        if gone:
            self._table.change(Contents(gone, gone), Contents())
            self.flows.end(gone, connections_end=connections_end)

    def _note_stopped(self, old: Record | None) -> None:
        """Record that a guest without elements stops. The caller must hold the lock."""
        if old and old.state is State.RESERVED:
            self.state.write(old._replace(state=State.STOPPED, problem=None), old)

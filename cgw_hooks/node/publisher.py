"""Changes the node's published ports: records, ruleset, firewall and flows together.

Only this module knows the order of the steps for one guest: first the record, then one nft
transaction, last conntrack. Each step may be repeated: after a crash, a later call or ``cgw sync``
completes the work. Hook calls of guests that publish load this module: it must import little.
"""

from __future__ import annotations

import time

from cgw_hooks.core.guest import Guest
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.published_port import DATAGRAM_PROTOCOLS
from cgw_hooks.core.record import (
    Record,
    State,
    perhaps_translated,
    published,
    translated,
    visible,
)
from cgw_hooks.core.rules import table
from cgw_hooks.errors import CgwError, RecordError, RulesetError
from cgw_hooks.host.nft import Nft
from cgw_hooks.host.state.lock import LockTimeout
from cgw_hooks.node import ports
from cgw_hooks.node.firewall_exceptions import FirewallExceptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.host.state.state import State as NodeState


class Publisher:
    """What this node publishes."""

    def __init__(self, config: NodeConfig, state: NodeState) -> None:
        self.config = config
        self.state = state
        self.nft = Nft()
        self.firewall = FirewallExceptions(state, self.nft)

    def reserve(self, guest: Guest, digest: str = "") -> None:
        """Reserve the guest's listening ports; add no NAT elements before it has started.

        Raises ``PortConflict``; then nothing has changed.
        """
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
            record = ports.withhold(record._replace(overrides=ports.keys_of(remotes)), found)
            if old and old.overrides != record.overrides:
                remotes = self._records({*old.overrides, *record.overrides})
            # Even without a record, withheld ports may still have elements.
            unknown = is_damaged or (old is None and bool(record.withheld))
            change = self._change(record, old, remotes, twins, rebuild=unknown)
        self._finish(change)
        self.delete_missing_flows(record.translated)
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
        except LockTimeout:
            self._withdraw_without_lock(key, connections_end=connections_end)
            raise
        self.delete_flows(lost, connections_end=connections_end)
        if change:
            self._finish(change, connections_end=connections_end)
        return old

    def release(self, key: GuestKey, *, connections_end: bool) -> Record | None:
        """Withdraw a guest's ports and release its claims. Returns the released record."""
        with self.state.locked():
            old, is_damaged = self._old(key)
            is_withdrawn = old is None or not old.may_have_elements
            lost = self._forget_damaged(key) if is_damaged else []
            if is_withdrawn and not is_damaged:
                self.state.remove(key, old)
        self.delete_flows(lost, connections_end=connections_end)
        if not is_withdrawn:
            old = self.withdraw(key, connections_end=connections_end)
            with self.state.locked():
                self.state.remove(key, self.state.peek(key))
        elif old and old.is_current and connections_end:
            # After stopped, only established TCP connections may be left.
            elsewhere = self._elsewhere(old)
            left = [p for p in old.guest.ports if p.protocol == "tcp" and p not in elsewhere]
            self.delete_flows(left, connections_end=True)
        return old

    def note_problem(self, guest: Guest, problem: Problem) -> None:
        """Record for ``cgw status`` why a guest's ports are not published."""
        with self.state.locked():
            old = self.state.peek(guest.key)
            record = old or Record(guest._replace(ports=()), State.RESERVED, time.time())
            self.state.write(record._replace(problem=problem), old)

    def restore(self, record: Record | None = None) -> None:
        """Make the ruleset hold exactly what the records say. The caller must hold the lock.

        ``record`` replaces the stored record of its guest, which perhaps could not be written.
        """
        records, _ = self.state.all()
        if record:
            records[record.key] = record
        self.write_ruleset(translated(list(records.values())))
        self.firewall.settle(records.values(), ())

    def write_ruleset(self, published_ports: Collection[PublishedPort]) -> None:
        """Make the ruleset hold the static rules and exactly these ports."""
        try:
            self.nft.apply(table.restore(self.config, published_ports))
        except RulesetError:  # another version's objects have other types
            self.nft.apply(table.replace(self.config, published_ports))

    def delete_flows(self, gone: Collection[PublishedPort], *, connections_end: bool) -> None:
        """Delete the flows that these published ports have translated."""
        if gone:
            from cgw_hooks.node import stale_flows

            stale_flows.delete_translated(gone, connections_end=connections_end)

    def delete_missing_flows(self, published_ports: Iterable[PublishedPort]) -> None:
        """Delete datagram flows that began before the ports were published."""
        datagrams = [port for port in published_ports if port.protocol in DATAGRAM_PROTOCOLS]
        if datagrams:
            from cgw_hooks.node import stale_flows

            stale_flows.delete_missing(datagrams)

    # -- one guest's change ------------------------------------------------------------------

    def _change(
        self,
        record: Record,
        old: Record | None,
        remotes: Collection[Record] = (),
        twins: Collection[Record] = (),
        *,
        rebuild: bool = False,
    ) -> _Change:
        """Replace a record, then the elements that differ. The caller must hold the lock.

        ``remotes`` are the remote guests that either record overrides. ``twins`` are the records
        that this one supersedes. ``rebuild`` means that the guest's present elements are
        unknown.
        """
        before = [*perhaps_translated(old), *visible(remotes, old)]
        before += [port for twin in twins for port in perhaps_translated(twin)]
        after = [*record.translated, *visible(remotes, record)]
        gone = list(dict.fromkeys(before).keys() - set(after))
        for twin in twins:
            self.state.write(twin._replace(state=State.SUPERSEDED, leaving=()), twin)
        if rebuild:
            self.state.forget_entries(record.key)
        unwritten = self._write(record._replace(leaving=tuple(gone)), old)
        try:
            if rebuild:
                gone += self._rebuild(record)
            elif gone or record.translated:
                self._commit(record, after, gone)
            self.firewall.change(old, record)
        except CgwError as error:
            failed = record._replace(leaving=tuple(gone), problem=Problem.of(error))
            self._write(failed, record)
            raise
        return _Change(record, gone, unwritten)

    def _write(self, record: Record, old: Record | None) -> RecordError | None:
        """Write a record. For a stopped guest, return an error, since its ports must be closed."""
        try:
            self.state.write(record, old)
        except RecordError as error:
            if record.state is not State.STOPPED:
                raise
            try:  # the next restore would open the ports of the old record
                self.state.remove(record.key, old)
            except RecordError:  # a read-only file system: a later sync removes it
                return error
            return error
        return None

    def _commit(
        self, record: Record, add: Collection[PublishedPort], delete: Collection[PublishedPort]
    ) -> None:
        try:
            self.nft.apply(table.change(self.config, add=add, delete=delete))
        except RulesetError:  # the table is missing or has other rules
            self.restore(record)

    def _finish(self, change: _Change, *, connections_end: bool = True) -> None:
        """Delete the flows of withdrawn ports. This can take long, so the lock is not held."""
        if change.gone:
            self.delete_flows(change.gone, connections_end=connections_end)
            with self.state.locked():
                now = self.state.peek(change.record.key)
                if now and now.leaving:
                    self.state.write(now._replace(leaving=()), now)
        if change.unwritten:
            raise change.unwritten

    def _withdraw_without_lock(self, key: GuestKey, *, connections_end: bool) -> None:
        """Close a stopped guest's ports although another cgw hangs. Its record is not changed."""
        old = self.state.peek(key)
        elsewhere = self._elsewhere(old) if old else set()
        gone = [port for port in old.translated if port not in elsewhere] if old else []
        if gone:
            self.nft.apply(table.change(self.config, add=(), delete=gone))
            self.delete_flows(gone, connections_end=connections_end)

    def _note_stopped(self, old: Record | None) -> None:
        """Record that a guest without elements stops. The caller must hold the lock."""
        if old and old.state is State.RESERVED:
            self.state.write(old._replace(state=State.STOPPED, problem=None), old)

    def _forget_damaged(self, key: GuestKey) -> list[PublishedPort]:
        """Remove an unreadable record and its elements; return these. Needs the lock."""
        lost = self._rebuild(Record(Guest(key, str(key)), State.STOPPED, 0.0))
        self.state.remove(key, None)
        return lost

    def _rebuild(self, record: Record) -> list[PublishedPort]:
        """Restore a ruleset of unknown content; return the ports that it no longer has."""
        from cgw_hooks.node import listed_ports

        before = listed_ports.read(self.nft)
        self.restore(record)
        return list(dict.fromkeys(before).keys() - set(listed_ports.read(self.nft)))

    def _elsewhere(self, record: Record) -> set[PublishedPort]:
        """Return the ports of the overridden remote guests: the guest may have moved there."""
        return {port for remote in self._records(record.overrides) for port in remote.translated}

    def _old(self, key: GuestKey) -> tuple[Record | None, bool]:
        """Return a guest's record, and whether there is one that cannot be read."""
        try:
            return self.state.find(key), False
        except RecordError:
            return None, True

    def _records(self, keys: Iterable[GuestKey]) -> list[Record]:
        """Return the readable records with these keys."""
        return [record for key in keys if (record := self.state.peek(key))]


class _Change(NamedTuple):
    """The result of a change: the guest's record and the ports without elements now."""

    record: Record
    gone: list[PublishedPort]
    #: The error if a stopped guest's record could not be written, although its ports are closed.
    unwritten: RecordError | None

"""Changes one guest's record, elements, firewall exceptions and flows, in this order.

Only this module knows the order: first the record, then one nft transaction, last conntrack. Each
step may be repeated: after a crash, a later call or ``cgw sync`` completes the work. Hook calls of
guests that publish load this module: it must import little.
"""

from __future__ import annotations

import time

from cgw_hooks.core.guest import Guest
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.published_port import no_longer_translated
from cgw_hooks.core.record import (
    Contents,
    Record,
    State,
    contents,
    perhaps_translated,
    unexpired,
)
from cgw_hooks.errors import CgwError, RecordError, RulesetError
from cgw_hooks.host.nft import Nft
from cgw_hooks.node.firewall_exceptions import FirewallExceptions
from cgw_hooks.node.flow_work import FlowWork, at_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.host.state.state import State as NodeState
    from cgw_hooks.node.flow_work import Work
    from cgw_hooks.node.table_writer import TableWriter


class Change(NamedTuple):
    """The result of a change: the guest's record and the ports without elements now."""

    record: Record
    gone: list[PublishedPort]
    #: The ports of a steered network whose guest does not run here any more.
    left: list[PublishedPort]
    #: The error if a stopped guest's record could not be written, although its ports are closed.
    unwritten: RecordError | None


class GuestChanges:
    """What this node has published, and how that changes for one guest.

    ``later`` carries out the work on tracked flows, or queues it.
    """

    def __init__(
        self,
        config: NodeConfig,
        state: NodeState,
        later: Callable[[Work], None] = at_once,
        nft: Nft | None = None,
    ) -> None:
        self.state = state
        self.config = config
        self.flows = FlowWork(later)
        self.nft = nft or Nft()
        self.firewall = FirewallExceptions(state, self.nft)
        #: ``since`` and ``leaving`` of the records whose leaving ports have no elements any more:
        #: this process has deleted them, and only the flows are still to be deleted.
        self._closed: dict[GuestKey, tuple[float, tuple[PublishedPort, ...]]] = {}

    def restore(self, record: Record | None = None) -> None:
        """Make the ruleset hold exactly what the records say. The caller must hold the lock.

        ``record`` replaces the stored record of its guest, which perhaps could not be written.
        """
        records, _ = self.state.all()
        if record:
            records[record.key] = record
        now = time.time()
        self._mend_bans()
        self.write_ruleset(contents([unexpired(record, now) for record in records.values()]))
        self.firewall.settle(records.values(), ())

    def _mend_bans(self) -> None:
        """Deny again whom a flush has admitted, before a port is opened; an error stops nothing."""
        from cgw_hooks.node import ban_keeper  # only if the ruleset was lost

        try:
            ban_keeper.mend(self.nft, self.state.directory)
        except CgwError as error:
            from cgw_hooks.host import log

            log.error(str(error))

    def write_ruleset(self, held: Contents) -> None:
        """Make the ruleset hold the static rules and exactly these contents."""
        self._table.write_all(held)

    @property
    def _table(self) -> TableWriter:
        from cgw_hooks.node.table_writer import TableWriter  # not at prepare

        return TableWriter(self.config, self.nft)

    def _change(
        self,
        record: Record,
        old: Record | None,
        remotes: Collection[Record] = (),
        twins: Collection[Record] = (),
        *,
        rebuild: bool = False,
    ) -> Change:
        """Replace a record, then the elements that differ. The caller must hold the lock.

        ``remotes`` are the remote guests that either record overrides. ``twins`` are the records
        that this one supersedes. ``rebuild`` means that the guest's present elements are
        unknown.
        """
        before = Contents.of(old, remotes)
        after = Contents.of(record._replace(leaving=()), remotes)
        of_twins = [port for twin in twins for port in perhaps_translated(twin)]
        before = Contents([*before.ports, *of_twins], [*before.hosted, *of_twins])
        gone = no_longer_translated(before.ports, after.ports)
        for twin in twins:
            self.state.write(twin._replace(state=State.SUPERSEDED, leaving=()), twin)
        if rebuild:
            self.state.forget_entries(record.key)
        unwritten = self._write(record._replace(leaving=tuple(gone)), old)
        try:
            if rebuild:
                gone += self._rebuild(record)
            elif gone or record.translated or set(before.hosted) - set(after.hosted):
                self._commit(record, before, after)
            self.firewall.change(old, record)
        except CgwError as error:
            failed = record._replace(leaving=tuple(gone), problem=Problem.of(error))
            self._write(failed, record)
            raise
        left = no_longer_translated(before.hosted, after.hosted)
        return Change(record, gone, [port for port in left if self._is_steered(port)], unwritten)

    def _is_steered(self, port: PublishedPort) -> bool:
        if not self.config.steered_networks:
            return False
        network = port.target_address and self.config.guest_network_of(port.target_address)
        return network in self.config.steered_networks

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

    def _commit(self, record: Record, before: Contents, after: Contents) -> None:
        try:
            self._table.change(before, after)
        except RulesetError:  # the table is missing or has other rules
            self.restore(record)

    def _finish(self, change: Change, *, connections_end: bool = True) -> None:
        """Delete the flows of withdrawn ports, then forget these ports."""
        key = change.record.key
        if change.gone:
            self._closed[key] = change.record.since, tuple(change.gone)

        def forget() -> None:
            with self.state.locked():
                self._closed.pop(key, None)
                now = self.state.peek(key)
                if now and now.leaving:
                    self.state.write(now._replace(leaving=()), now)

        self.flows.end(
            change.gone,
            connections_end=connections_end,
            then=forget,
            again=lambda: self._translated(key),
        )
        self.flows.end_steered(change.left)
        if change.unwritten:
            raise change.unwritten

    def _translated(self, key: GuestKey) -> tuple[PublishedPort, ...]:
        record = self.state.peek(key)
        return record.translated if record else ()

    def _is_withdrawn(self, record: Record) -> bool:
        """Whether no element is left that only this record tells of."""
        if not record.may_have_elements:
            return True
        closed = self._closed.get(record.key)
        return not record.translated and closed == (record.since, record.leaving)

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
        remotes = self._records(record.overrides)
        return {port.translation for remote in remotes for port in remote.translated}

    def _old(self, key: GuestKey) -> tuple[Record | None, bool]:
        """Return a guest's record, and whether there is one that cannot be read."""
        try:
            return self.state.find(key), False
        except RecordError:
            return None, True

    def _records(self, keys: Iterable[GuestKey]) -> list[Record]:
        """Return the readable records with these keys."""
        return [record for key in keys if (record := self.state.peek(key))]

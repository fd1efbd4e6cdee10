"""The node's published ports: records, claims and ruleset, changed together.

The one place that knows the order: record first, commit second, conntrack last.
Each step may be repeated; whatever a crash leaves, a later call or ``cgw sync``
finishes. Loaded by every hook call of a guest that publishes: keep it light.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from cgw_hooks.core.guest import Guest
from cgw_hooks.core.published_port import DATAGRAM_PROTOCOLS
from cgw_hooks.core.record import Record, State, ended, published, translated
from cgw_hooks.core.rules import table
from cgw_hooks.errors import CgwError, RecordError, RulesetError
from cgw_hooks.host.nft import Nft
from cgw_hooks.host.state.claims import Claims
from cgw_hooks.host.state.directory import locked
from cgw_hooks.host.state.records import Records
from cgw_hooks.node.firewall_exceptions import FirewallExceptions
from cgw_hooks.node.handover import OtherSelves
from cgw_hooks.node.ports import PortOwners

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import PublishedPort


class Publisher:
    """What this node publishes."""

    def __init__(self, config: NodeConfig, directory: str) -> None:
        self.config = config
        self.directory = directory
        self.nft = Nft()
        self.records = Records(directory)
        self.owners = PortOwners(self.records, Claims(directory))
        self.other_selves = OtherSelves(directory, self.records)
        self.firewall = FirewallExceptions(directory, self.nft)

    def locked(self) -> AbstractContextManager[None]:
        """Hold the node's lock."""
        return locked(self.directory)

    def claim(self, guest: Guest) -> None:
        """Take the guest's ports; translate nothing yet. Raises ``PortConflict``."""
        self._withdraw_unless(guest, stay=())
        with self.locked():
            old = self.records.find(guest.key)
            peers = self._take_claims(guest, old)
            record = Record(guest, State.CLAIMED, time.time(), peers=peers)
            self._write_and_commit(record, old, self.peers_of(record))

    def publish(self, guest: Guest) -> None:
        """Translate to the guest's ports, and to no others that it had before."""
        self._withdraw_unless(guest, stay=guest.ports)
        with self.locked():
            old = self.records.find(guest.key)
            record = self.published(guest, old)
            self._write_and_commit(record, old, self.peers_of(record))
        self.delete_missing_flows(guest.ports)

    def published(self, guest: Guest, old: Record | None) -> Record:
        """Take the claims that a guest has not yet, and return its record. Hold the lock."""
        peers = old.peers if old else ()
        if old is None or old.state is State.SUCCEEDED or old.guest.ports != guest.ports:
            peers = self._take_claims(guest, old)
        return published(guest, old, peers, time.time())

    def withdraw(self, key: str, *, connections_end: bool) -> Record | None:
        """Translate no more to a guest, and keep its claims until it is forgotten.

        ``connections_end``: established TCP connections are deleted as well. Returns
        what was withdrawn.
        """
        with self.locked():
            old = self.records.find(key)
            if old is None or old.state is State.SUCCEEDED:
                return old
            peers = self.peers_of(old)
            if old.state is not State.STOPPED:
                new = old._replace(state=State.STOPPING, since=time.time())
                self._write_and_commit(new, old, peers)
                for peer in peers:
                    self.owners.take(peer.guest)
        self.delete_flows_of(old, peers, connections_end=connections_end)
        with self.locked():
            record = self.records.find(key)
            if record and record.state is State.STOPPING:
                self.records.write(record._replace(state=State.STOPPED))
        return old

    def forget(self, key: str, *, connections_end: bool) -> Record | None:
        """Withdraw a guest's ports and let others have them. Returns what was forgotten."""
        old = self.withdraw(key, connections_end=connections_end)
        if old:
            with self.locked():
                self.give_up(old)
        return old

    def give_up(self, record: Record) -> None:
        """Remove a withdrawn guest's claims and record. Hold the lock."""
        self.other_selves.remove(record.guest)
        self.owners.give_up(record.guest)
        self.records.forget(record.guest.key)

    def _take_claims(self, guest: Guest, old: Record | None) -> tuple[str, ...]:
        """Write the guest's claims down instead of its old ones. Hold the lock.

        Returns the keys of the peers that are the same guest. Raises ``PortConflict``;
        then nothing has changed.
        """
        self.owners.refuse_conflict(guest)
        peers = self.owners.find_peers(guest) | self._succeed_other_selves(guest)
        self.owners.take(guest)
        if old:
            peers.update(old.peers)
            self.owners.give_up(old.guest, but=guest)
        return tuple(sorted(peers))

    def _succeed_other_selves(self, guest: Guest) -> set[str]:
        """Leave the guest's other self with nothing to take away.

        Returns the keys of the peers that stood by for it: now they do for the guest.
        """
        self.other_selves.add(guest)
        peers: set[str] = set()
        for record in self.other_selves.of(guest):
            peers.update(record.peers)
            gone = [port for port in record.perhaps_translated if port not in guest.ports]
            succeeded = record._replace(state=State.SUCCEEDED)
            try:
                if gone:
                    self.nft.apply(table.change(self.config, add=[], delete=gone))
                self.records.write(succeeded)
            except RulesetError:  # not the table that should be there
                self.records.write(succeeded)
                self.restore()
        return peers

    def hand_back(self, key: str) -> None:
        """Where a guest goes that took the ports over, its other self goes on with them.

        Without a pause: they are the other self's before anything of this one is withdrawn.
        """
        going = self.records.find(key)
        if going and going.state is not State.SUCCEEDED:
            for record in self.other_selves.of(going.guest):
                if record.state is State.SUCCEEDED:
                    self.publish(record.guest)

    def note_problem(self, key: str, name: str, problem: str) -> None:
        """Keep for ``cgw status`` why a guest's ports are not published."""
        driver, _, uuid = key.partition("-")
        with self.locked():
            unknown = Record(Guest(driver, uuid, name), State.CLAIMED, time.time())
            self.records.write((self.records.find(key) or unknown)._replace(problem=problem))

    def restore(self) -> list[CgwError]:
        """Make the ruleset hold exactly what the records say. Hold the lock.

        Returns what is wrong with records that cannot be read.
        """
        records, errors = self.records.all()
        ports = translated(records)
        try:
            self.nft.apply(table.restore(self.config, ports))
        except RulesetError:
            self.nft.apply(table.replace(self.config, ports))
        self.firewall.open(records)
        return list(errors)

    def delete_flows_of(
        self, record: Record, peers: Iterable[Record], *, connections_end: bool
    ) -> None:
        """Delete the flows that go to a withdrawn guest."""
        ports = ended(record, peers, connections_end=connections_end)
        if ports:
            from cgw_hooks.node import stale_flows

            stale_flows.delete_translated(ports, connections_end=connections_end)

    def delete_missing_flows(self, ports: Iterable[PublishedPort]) -> None:
        """Let clients in that were sending datagrams before the ports were published."""
        ports = [port for port in ports if port.protocol in DATAGRAM_PROTOCOLS]
        if ports:
            from cgw_hooks.node import stale_flows

            stale_flows.delete_missing(ports)

    def _withdraw_unless(self, guest: Guest, stay: Collection[PublishedPort]) -> None:
        """Withdraw a guest before its record says that it publishes other ports than these.

        A crash in between would leave what the record had in the ruleset for good. Raises
        ``PortConflict`` if it cannot have what it asks for; then nothing has changed.
        """
        old = self.records.find(guest.key)
        if old and not set(old.perhaps_translated) <= set(stay):
            with self.locked():
                self.owners.refuse_conflict(guest)
            self.withdraw(guest.key, connections_end=False)

    def _write_and_commit(
        self, record: Record, old: Record | None, peers: Iterable[Record]
    ) -> None:
        """Record first, commit second; what fails is kept in the record, then raised."""
        self.records.write(record._replace(problem=""))
        try:
            self._commit(record, old, [port for peer in peers for port in peer.translated])
        except CgwError as error:
            self.records.write(record._replace(problem=str(error)))
            raise

    def _commit(
        self, record: Record, old: Record | None, of_peers: Collection[PublishedPort]
    ) -> None:
        before = (old.perhaps_translated if old else ()) or of_peers
        after = record.translated or of_peers
        gone = [port for port in before if port not in after]
        if gone or record.translated:
            try:
                self.nft.apply(table.change(self.config, add=after, delete=gone))
            except RulesetError:
                self.restore()
        if record.state is State.PUBLISHED:
            self.firewall.open([record])
        else:
            self.firewall.close(record)

    def peers_of(self, record: Record) -> list[Record]:
        """The records of the peers that are the same guest."""
        found = []
        for key in record.peers:
            with suppress(RecordError):  # cgw status tells; here, the guest comes first
                found.append(self.records.find(key))
        return [peer for peer in found if peer]

"""The node's published ports: records, claims and ruleset, changed together.

The one place that knows the order: record first, commit second, conntrack last.
Each step may be repeated; whatever a crash leaves, a later call or ``cgw sync``
finishes. Loaded by every hook call of a guest that publishes: keep it light.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from cgw_hooks.commands import other_self
from cgw_hooks.core import ruleset
from cgw_hooks.core.guest import PEER, Guest
from cgw_hooks.core.published_port import DATAGRAM_PROTOCOLS
from cgw_hooks.core.record import Record, State, ended, published, translated
from cgw_hooks.errors import CgwError, PortConflict, RecordError, RulesetError, quoted
from cgw_hooks.host.claims import Claims
from cgw_hooks.host.firewall import Firewall
from cgw_hooks.host.key_index import KeyIndex
from cgw_hooks.host.nft import Nft
from cgw_hooks.host.records import Records
from cgw_hooks.host.runtime_directory import locked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cgw_hooks.core.node import NodeConfig
    from cgw_hooks.core.published_port import Claim, PublishedPort


class Publisher:
    """What this node publishes."""

    def __init__(self, config: NodeConfig, directory: str) -> None:
        self.config = config
        self.directory = directory
        self.records = Records(directory)
        self.claims = Claims(directory)
        self.bridge_users = KeyIndex(directory, "bridges")
        self.selves = KeyIndex(directory, "selves")
        self.nft = Nft()
        self.firewall = Firewall(self.nft.read, self.nft.apply)

    def locked(self) -> AbstractContextManager[None]:
        """Hold the node's lock."""
        return locked(self.directory)

    def claim(self, guest: Guest) -> None:
        """Take the guest's ports; translate nothing yet. Raises ``PortConflict``."""
        self._withdraw_unless(guest, stay=())
        with self.locked():
            old = self.records.find(guest.key)
            peers = self.take_claims(guest, old)
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
            peers = self.take_claims(guest, old)
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
                    self.write_claims(peer.guest)
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
        if record.guest.lasting_id:
            self.selves.remove(record.guest.lasting_id, record.guest.key)
        self.claims.give_up(record.guest.key, record.guest.claims)
        self.records.forget(record.guest.key)

    def take_claims(self, guest: Guest, old: Record | None) -> tuple[str, ...]:
        """Write the guest's claims down instead of its old ones. Hold the lock.

        Returns the keys of the peers that are the same guest. Raises ``PortConflict``;
        then nothing has changed.
        """
        self._refuse_conflict(guest)
        peers = set(old.peers) if old else set()
        known = {*self._rivals(guest), f"{PEER}-{guest.name}"} - {guest.key}
        peers.update(key for key in known if self._is_same(key, guest))
        if guest.lasting_id:
            peers |= other_self.succeed(self, guest)
        self.write_claims(guest)
        if old:
            self.claims.give_up(guest.key, set(old.guest.claims) - set(guest.claims))
        return tuple(sorted(peers))

    def _refuse_conflict(self, guest: Guest) -> None:
        conflict = self.conflict(guest)
        if conflict:
            raise PortConflict(conflict)

    def conflict(self, guest: Guest) -> str:
        """Who has one of the guest's ports already, and the cure; empty where all are free."""
        who = f"guest {quoted(guest.name)}"
        for holder, claim in self._rivals(guest).items():
            if self._is_same(holder, guest):
                continue
            return (
                f"{who}: port {claim} is published by guest {self._name_of(holder)}; "
                "publish another, or stop that guest first"
            )
        from cgw_hooks.host import listeners  # sockets: at prepare only

        taken = listeners.taken_by_node(guest.claims)
        if taken:
            return (
                f"{who}: port {taken} is in use by a process of this node; publish another, "
                f"or stop that process first (see: ss -lnp sport = :{taken.port})"
            )
        return ""

    def _rivals(self, guest: Guest) -> dict[str, Claim]:
        """Who else holds ports of the guest, each with the first of them."""
        rivals = self.claims.rivals(guest.key, guest.claims, self._holds)
        if guest.lasting_id:
            return {k: c for k, c in rivals.items() if not other_self.is_one(self, k, guest)}
        return rivals

    def _holds(self, key: str, claim: Claim) -> bool:
        """Whether a guest's record has the claim too: a claim alone is what a crash left."""
        try:
            record = self.records.find(key)
        except CgwError:
            return True  # nobody can tell: it stays the guest's
        return record is not None and claim in record.guest.claims

    def _is_same(self, holder: str, guest: Guest) -> bool:
        """Whether the holder of a port is this guest, as known from another node."""
        if not (guest.is_peer or holder.startswith(f"{PEER}-")):
            return False
        with suppress(RecordError):  # cgw status tells
            record = self.records.find(holder)
            return record is not None and record.guest.is_same_as(guest)
        return False

    def write_claims(self, guest: Guest) -> None:
        """Write down what a guest's record says, whoever else wanted it. Hold the lock."""
        self.claims.take(guest.key, guest.claims)

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
            self.nft.apply(ruleset.restore(self.config, ports))
        except RulesetError:
            self.nft.apply(ruleset.replace(self.config, ports))
        self._open_firewall(records)
        return list(errors)

    def delete_flows_of(
        self, record: Record, peers: Iterable[Record], *, connections_end: bool
    ) -> None:
        """Delete the flows that go to a withdrawn guest."""
        ports = ended(record, peers, connections_end=connections_end)
        if ports:
            from cgw_hooks.commands import stale_flows

            stale_flows.delete_translated(ports, connections_end=connections_end)

    def delete_missing_flows(self, ports: Iterable[PublishedPort]) -> None:
        """Let clients in that were sending datagrams before the ports were published."""
        ports = [port for port in ports if port.protocol in DATAGRAM_PROTOCOLS]
        if ports:
            from cgw_hooks.commands import stale_flows

            stale_flows.delete_missing(ports)

    def _withdraw_unless(self, guest: Guest, stay: Collection[PublishedPort]) -> None:
        """Withdraw a guest before its record says that it publishes other ports than these.

        A crash in between would leave what the record had in the ruleset for good. Raises
        ``PortConflict`` if it cannot have what it asks for; then nothing has changed.
        """
        old = self.records.find(guest.key)
        if old and not set(old.perhaps_translated) <= set(stay):
            with self.locked():
                self._refuse_conflict(guest)
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
                self.nft.apply(ruleset.change(self.config, add=after, delete=gone))
            except RulesetError:
                self.restore()
        if record.state is State.PUBLISHED:
            self._open_firewall([record])
        else:
            self._close_firewall(record)

    def peers_of(self, record: Record) -> list[Record]:
        """The records of the peers that are the same guest."""
        found = []
        for key in record.peers:
            with suppress(RecordError):  # cgw status tells; here, the guest comes first
                found.append(self.records.find(key))
        return [peer for peer in found if peer]

    def _open_firewall(self, records: Iterable[Record]) -> None:
        needed = set()
        for record in records:
            for bridge in record.guest.network_bridges if record.translated else ():
                self.bridge_users.add(bridge, record.guest.key)
                needed.add(bridge)
        for bridge in sorted(needed):
            self.firewall.admit(bridge)

    def close_unused_firewall(self) -> None:
        """Take away the exceptions that no guest needs. Hold the lock."""
        for bridge in self.bridge_users.groups():
            for key in self.bridge_users.keys(bridge):
                record = self.records.find(key)
                needed = record and record.translated and bridge in record.guest.network_bridges
                if not needed and self.bridge_users.remove(bridge, key):
                    self.firewall.dismiss(bridge)

    def _close_firewall(self, record: Record) -> None:
        for bridge in record.guest.network_bridges:
            if self.bridge_users.remove(bridge, record.guest.key):
                self.firewall.dismiss(bridge)

    def _name_of(self, key: str) -> str:
        with suppress(CgwError):
            record = self.records.find(key)
            if record:
                where = " (of another node)" if record.guest.is_peer else ""
                return quoted(record.guest.name) + where
        return quoted(key)

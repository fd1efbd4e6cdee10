"""Keeps ruleset, firewall exceptions and addresses as the records say.

It follows the kernel and the lease files. It never asks libvirt, so it also works while libvirtd
is silent. Each event only says "look again": a lost one costs time, never truth.
"""

from __future__ import annotations

import selectors
import threading
import time
from typing import TYPE_CHECKING

from cgw_hooks.agent import worker
from cgw_hooks.core.ownership import Listeners
from cgw_hooks.core.record import State
from cgw_hooks.host import listeners, log, memory, paths
from cgw_hooks.host.folder_events import FolderEvents
from cgw_hooks.host.libvirt_leases import DNSMASQ_DIRECTORY
from cgw_hooks.host.link_events import LinkEvents
from cgw_hooks.host.ruleset_events import RulesetEvents
from cgw_hooks.node import gateway_addresses, ports, reconcile
from cgw_hooks.node.firewall_exceptions import bridges_of
from cgw_hooks.node.refresh import follow_addresses

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from cgw_hooks.agent.agent_publisher import AgentPublisher
    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.ownership import Listener
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.sync_log import SyncLog

#: Seconds. The kernel does not tell of new listeners, so they are looked for this often.
LISTENER_SECONDS = 3.0
#: Seconds. Addresses are looked for this often although no event told of one: leases expire.
ADDRESS_SECONDS = 60.0
#: Seconds between two repairs: a firewall that is reloaded makes many commits in a row.
_PAUSE = 0.1
_PROTOCOLS = ("tcp", "udp", "sctp")


if TYPE_CHECKING:

    class Guests(Protocol):
        """Whom the repairer tells what only libvirt can answer."""

        def look_at(self, key: GuestKey) -> None:
            """Look again at one guest."""

        def look_at_all(self) -> None:
            """Look again at all guests."""

        def folder_changed(self, folder: str) -> None:
            """Note that the content of a watched folder has changed."""


class Repairer:
    """One thread. ``folders`` are watched for ``guests``."""

    def __init__(
        self, publisher: AgentPublisher, log: SyncLog, guests: Guests, folders: Iterable[str]
    ) -> None:
        self.publisher = publisher
        #: The time of its last turn, by the monotonic clock, in seconds.
        self.last_turn = time.monotonic()
        #: Set when the first repair is done, or has failed.
        self.has_repaired = threading.Event()
        self._log = log
        self._guests = guests
        self._ruleset = RulesetEvents()
        self._links = LinkEvents()
        self._nodes_folder = publisher.known_nodes.folder
        self._folders = FolderEvents(
            [DNSMASQ_DIRECTORY, paths.guests_directory(), self._nodes_folder, *folders]
        )
        #: The other nodes that the rules were last made for.
        self._nodes = publisher.config.remote_nodes
        #: The listeners, and the time of the last change of a record, at the last look.
        self._looked_at: tuple[set[Listener], int] = set(), 0
        self._wrong: list[str] = []
        self._noted = 0.0
        self._looked_for_listeners = self._looked_for_addresses = 0.0
        self._waiting = selectors.DefaultSelector()
        for source in (self._ruleset, self._links, self._folders):
            self._waiting.register(source, selectors.EVENT_READ)

    def run(self) -> None:
        """Follow the events; does not return."""
        worker.attempt("first repair", self.repair)
        worker.attempt("first look", self._look_at_gateway)
        self.has_repaired.set()
        while True:
            self.last_turn = time.monotonic()
            self._waiting.select(LISTENER_SECONDS)
            worker.attempt("repair", self._turn)
            time.sleep(_PAUSE)

    def repair(self) -> None:
        """Make the node match its records and its config; nothing if nothing differs."""
        nodes = self.publisher.config.remote_nodes
        report = reconcile.sync(self.publisher, drivers=())
        self._nodes = nodes
        self._log.write(report)
        memory.give_back()
        if report.repaired:  # perhaps records were lost, which only libvirt can tell
            self._guests.look_at_all()

    def _turn(self) -> None:
        commits, changes, names = self._ruleset.read(), self._links.read(), self._folders.read()
        folders = {folder for folder, _ in names.changed}
        is_wrong = commits.ours or commits.lost or changes.lost
        is_other_cluster = self.publisher.config.remote_nodes != self._nodes
        is_wrong = is_wrong or is_other_cluster or (commits.others and self._lacks_exception())
        if is_wrong or self._has_other_listeners():
            self.repair()
        is_news = DNSMASQ_DIRECTORY in folders or changes.neighbours or names.lost or changes.lost
        if is_news or time.monotonic() - self._looked_for_addresses > ADDRESS_SECONDS:
            self._follow_addresses()
        for folder in folders - {DNSMASQ_DIRECTORY, self._nodes_folder}:
            self._guests.folder_changed(folder)
        if paths.guests_directory() in folders:
            self._guests.look_at_all()
        if is_other_cluster:
            self._wrong = []  # it may be the same again, but for another reason
        is_late = bool(self._wrong) and self._was_noted_long_ago()
        if changes.links or changes.addresses or is_other_cluster or is_late:
            self._look_at_gateway()
        if (changes.links or changes.addresses) and self._has_problems():
            self._guests.look_at_all()

    def _look_at_gateway(self) -> None:
        """Let what the gateway's devices and routes lack be set again."""
        before, self._wrong = self._wrong, gateway_addresses.wrong(self.publisher)
        if self._wrong and self._wrong != before:
            log.error(f"agent: the gateway {self._wrong[0]}; run: cgw node up")
        if self._wrong and (self._wrong != before or self._was_noted_long_ago()):
            self._noted = time.monotonic()
            self.publisher.state.note_lost_gateway()  # systemd runs it: cgw-resync.path

    def _was_noted_long_ago(self) -> bool:
        return time.monotonic() - self._noted > ADDRESS_SECONDS

    def _follow_addresses(self) -> None:
        self._looked_for_addresses = time.monotonic()
        followed = follow_addresses(self.publisher)
        for record in followed.published:
            self._log.published(record)
        for problem in followed.problems:
            self._log.problem(problem)
        for key in followed.to_refresh:
            self._guests.look_at(key)

    def _has_problems(self) -> bool:
        """Whether a guest is not published that perhaps can be, now that a link has changed."""
        records, _ = self.publisher.state.all()
        return any(record.problem for record in records.values())

    def _lacks_exception(self) -> bool:
        """Whether another program's change has removed an exception, or put a reject before it."""
        records, _ = self.publisher.state.all()
        needed = {bridge for record in records.values() for bridge in bridges_of(record)}
        return bool(needed and self.publisher.firewall.obstacles(needed).behind)

    def _has_other_listeners(self) -> bool:
        """Whether listeners use other ports of guests than before; False between two looks."""
        now = time.monotonic()
        if now - self._looked_for_listeners < LISTENER_SECONDS:
            return False
        self._looked_for_listeners = now
        changed = self.publisher.state.changed_at()
        if not changed:
            return False
        found = set(listeners.listening(_PROTOCOLS))
        # A listener may have come and gone between two looks: a record then tells of it.
        if (found, changed) == self._looked_at:
            return False
        self._looked_at = found, changed
        records, _ = self.publisher.state.all()
        those = Listeners(found)
        return any(self._is_withheld_wrongly(record, those) for record in records.values())

    def _is_withheld_wrongly(self, record: Record, found: Listeners) -> bool:
        """Whether other ports should be withheld than those that are."""
        if record.state is not State.PUBLISHED:
            return False
        should_be = {port for port in record.guest.ports if found.taken(port.claim)}
        if record.withheld:
            should_be |= ports.lost(self.publisher.state, record.guest).keys()
        return should_be != set(record.withheld)

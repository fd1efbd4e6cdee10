"""Makes this node match the registry of the cluster, and the registry match this node.

Its thread is the only one that changes the node because of the registry, and the only one that
writes guests' keys. While the registry does not answer, nothing is withdrawn: silence is no news.
"""

from __future__ import annotations

import selectors
import time
from typing import TYPE_CHECKING

from cgw_hooks.agent import worker
from cgw_hooks.agent.registry import requests
from cgw_hooks.agent.registry.addresses import NodeAddresses
from cgw_hooks.agent.registry.inbox import Told
from cgw_hooks.agent.registry.outbox import Outbox
from cgw_hooks.agent.registry.presence import PresenceKeeper
from cgw_hooks.agent.registry.report import Reporter
from cgw_hooks.agent.registry.watcher import Changes, Lost, Snapshot, Watcher
from cgw_hooks.core.registry_value import Keys
from cgw_hooks.core.registry_view import View
from cgw_hooks.errors import RegistryError
from cgw_hooks.host import memory, paths, registry_snapshot
from cgw_hooks.node.registered import Registered

if TYPE_CHECKING:
    from cgw_hooks.agent.agent_publisher import AgentPublisher
    from cgw_hooks.agent.registry.inbox import Inbox, News
    from cgw_hooks.agent.registry.requests import Request
    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.node_config import Registry
    from cgw_hooks.node.sync_log import SyncLog

    Message = Told | Request | None

_NOT_CONNECTED = RegistryError("registry", "it has not answered yet", "see: cgw registry status")
#: Seconds until a failed change is tried again, seconds if the registry has refused it, and seconds
#: between two looks if nothing has failed.
_RETRY, _RETRY_REFUSED, _LOOK = 0.03, 0.3, 1.0
#: Seconds without the registry after which no guest's start waits for it any more.
_PATIENCE = 5.0
#: Seconds for which another node's change is waited for, once it is known to have happened.
_CATCH_UP = 0.3
#: Seconds after an outage: by then the node that a guest has migrated to has written its entry.
_ARRIVAL_SECONDS = 1.0
#: Seconds between two snapshots on disk.
_SAVE_SECONDS = 5.0
#: Seconds: by then every node that runs has noticed that etcd has lost its data, and has written
#: its own entries again.
_KEEP_SECONDS = 30.0


class Session:
    """What is known of the registry that one config names."""

    def __init__(
        self,
        config: Registry,
        publisher: AgentPublisher,
        log: SyncLog,
        inbox: Inbox[Message],
    ) -> None:
        self._publisher = publisher
        self._inbox = inbox
        self.keys = Keys(config.prefix)
        self.view = View(self.keys, publisher.loaded.name)
        self.registered = Registered(publisher, self.view, log)
        self.addresses = NodeAddresses(publisher, self.view)
        self.outbox = Outbox(config, self.registered, self._changed, self._catch_up)
        self._prefix = config.prefix
        self._is_connected = False
        #: Since when it is not connected.
        self._lost = time.monotonic()
        #: The guests whose change could not be carried out.
        self._unapplied: set[str] = set()
        self._is_saved, self._saved = True, 0.0
        #: Until when what etcd has lost stays, so that its nodes can write it again.
        self._keeps_until = 0.0
        self._was_down = False
        self._start_from_disk()
        presence_key = self.keys.nodes + self.view.node
        self._watcher = Watcher(config, self.keys.root, self._tell)
        self._presence = PresenceKeeper(config, presence_key, self._tell)
        self._reporter = Reporter(publisher, self.view, self.outbox, self._presence, self.addresses)
        self.outbox.dirty |= self.registered.own_uuids()
        worker.start("registry watcher", self._watcher.run)
        worker.start("registry presence", self._presence.run)

    def _tell(self, news: News) -> None:
        """Pass on what another thread tells."""
        self._inbox.add(Told(self, news))

    def close(self) -> None:
        """End the other threads."""
        worker.attempt("registry snapshot", self.save)
        self._watcher.close()
        self._presence.close()
        self.outbox.close()

    @property
    def pause(self) -> float:
        """Seconds until the next turn, if nothing happens before."""
        if self._unapplied:
            return _RETRY
        if self._is_connected and self.outbox.dirty:
            return _RETRY_REFUSED if self._reporter.error else _RETRY
        return _LOOK

    def take(self, message: News) -> None:
        """Note what another thread tells."""
        if isinstance(message, Snapshot):
            if not self._is_connected and self.view.revision:
                self.outbox.keeps_until = time.monotonic() + _ARRIVAL_SECONDS
            if not self._is_connected:
                self.registered.connected_since = time.time()
            self._is_connected = True
            self._reporter.error = None
            self.view.replace(*message)
            if self.view.has_kept:
                self._keeps_until = time.monotonic() + _KEEP_SECONDS
            self.look_at_all()
            self.addresses.look_again()
            self._is_saved = False
            self._apply(None)
            memory.give_back()
        elif isinstance(message, Changes):
            self._take_changes(message)
        elif isinstance(message, Lost):
            if self._is_connected:
                self._lost = time.monotonic()
            self._is_connected = False
            self.registered.connected_since = None
            self._reporter.error = message.error
        else:
            self._reporter.health = message.problems

    def carry_out(self, request: Request) -> None:
        """Carry out a request, or note it."""
        if isinstance(request, requests.Claim):
            requests.claim(request, self.outbox, self.registered)
        elif isinstance(request, requests.Forget):
            requests.forget(request, self.view, self.outbox, self.registered)
        elif isinstance(request, requests.Import):
            requests.import_(request, self.view, self.outbox)
        else:
            worker.attempt("registry snapshot", self.save)
            request.ticket.finish()

    def look_at_all(self) -> None:
        """Compare all of this node's keys with its records, also those that have no record."""
        own = self.view.uuids_of(self.view.node)
        self.outbox.dirty |= self.registered.own_uuids().union(own)

    def _take_changes(self, message: Changes) -> None:
        present = set(self.view.nodes)
        changed = self.view.apply(message.revision, message.changes)
        # A guest of a dead node may have started here before that node was known to be gone.
        for node in present - self.view.nodes.keys():
            self.outbox.dirty |= set(filter(self.registered.is_own, self.view.uuids_of(node)))
        if changed:  # carried out in the next turn, with what else has changed until then
            self._is_saved = False
            self._unapplied |= changed
            self.outbox.dirty |= {uuid for uuid in changed if self.registered.is_own(uuid)}

    def turn(self, changed: list[GuestKey]) -> None:
        """Write what differs; ``changed`` are the keys of records that others may have changed."""
        is_down = self._publisher.state.is_gateway_down()
        if is_down != self._was_down:
            self._was_down = is_down
            self._apply(None)
        for key in changed:
            uuid = self.registered.uuid_of(key)
            if uuid:
                self.outbox.dirty.add(uuid)
        if self._keeps_until and time.monotonic() > self._keeps_until:
            self._keeps_until = 0.0
            self._changed(self.view.forget_kept())
        self.outbox.dirty |= self.registered.forget_overdue()
        if self._unapplied:
            self._apply(self._unapplied)
        worker.attempt("known nodes", self._follow_nodes)
        self._flush()
        self._reporter.write(changed, is_connected=self._is_connected)
        now = time.monotonic()
        if not self._is_saved and now - self._saved > _SAVE_SECONDS:
            self._saved = now
            self.save()

    def _follow_nodes(self) -> None:
        self.addresses.follow(is_connected=self._is_connected)

    def _flush(self) -> None:
        """Write what differs, or tell those who wait that it cannot be written now."""
        if self._is_connected:
            try:
                self.outbox.write(self.addresses.differing())
                self.outbox.flush()
            except RegistryError as error:
                self._reporter.error = error
            else:
                self._reporter.error = None
        elif time.monotonic() - self._lost > _PATIENCE:
            self.outbox.give_up_waiting(self._reporter.error or _NOT_CONNECTED)

    def save(self) -> None:
        """Write the view to the disk."""
        folder = paths.state_directory()
        try:
            registry_snapshot.write(folder, self._prefix, self.view.revision, self.view.all())
        except OSError as error:
            raise RegistryError(folder, f"the snapshot cannot be written: {error}") from error
        self._is_saved = True

    def _start_from_disk(self) -> None:
        """After a reboot, the records of other nodes' guests are gone; the snapshot has them."""
        found = registry_snapshot.read(paths.state_directory(), self._prefix)
        if found:
            self.view.replace(found.revision, found.changes)
            if not self.registered.has_records():
                worker.attempt("registry snapshot", lambda: self._apply(None))

    def _changed(self, uuids: set[str]) -> None:
        """Carry out that the view says something else of some guests."""
        self._is_saved = False
        self._apply(uuids)

    def _apply(self, uuids: set[str] | None) -> None:
        """Make the node match the view, for some guests or (None) for all."""
        wanted = set(self.view.uuids()) if uuids is None else set(uuids)
        self._unapplied |= wanted
        self.registered.apply(None if uuids is None else wanted)
        self._unapplied -= wanted

    def _catch_up(self, serial: int) -> bool:
        """Wait until the change with this revision is in the view."""
        end = time.monotonic() + _CATCH_UP
        later: list[Message] = []
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._inbox, selectors.EVENT_READ)
            while self.view.serial < serial and time.monotonic() < end:
                waiting.select(end - time.monotonic())
                for message in self._inbox.drain():
                    if isinstance(message, Told) and message.session is self:
                        self.take(message.news)
                    else:
                        later.append(message)
        for message in later:
            self._inbox.add(message)
        return self.view.serial >= serial

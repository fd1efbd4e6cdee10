"""Asks libvirt and Xen about guests. This is the only thread of the agent that waits for them.

It never holds the node's lock while it asks: a hook may wait for the lock, and libvirt for the
hook.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from cgw_hooks.agent import worker
from cgw_hooks.core.guest import XL, GuestKey
from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.host import memory
from cgw_hooks.host.libvirt_events import LibvirtEvents
from cgw_hooks.node import reconcile
from cgw_hooks.node.refresh import ask_neighbours, refresh

if TYPE_CHECKING:
    from cgw_hooks.host.libvirt_connection import News
    from cgw_hooks.node.publisher import Publisher
    from cgw_hooks.node.sync_log import SyncLog

#: Seconds. All guests are looked at this often although no event told to: libvirt tells nothing
#: of an interface that is attached to an LXC guest.
CLOCK_SECONDS = 300.0
#: Seconds until an attempt to take back an expired port is repeated.
_RETRY = 30.0
#: Seconds between two turns. Many events come at once, for example when a host starts its guests.
_PAUSE = 0.05


class _Wanted:
    """What to look at again."""

    def __init__(self, *, everything: bool = False) -> None:
        self.everything = everything
        self.guests: set[GuestKey] = set()
        #: Guests whose agent has connected.
        self.agents: set[GuestKey] = set()


class Inquirer:
    """One thread. The methods that begin with ``look_`` may be called from any other."""

    def __init__(self, publisher: Publisher, log: SyncLog) -> None:
        self.publisher = publisher
        #: Set when all guests were looked at for the first time.
        self.has_looked = threading.Event()
        self.libvirt = LibvirtEvents(self._tell)
        #: The guests that are leaving by a migration. libvirt's hooks do not say this before 10.5.
        self._leaving: set[GuestKey] = set()
        self._log = log
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._wanted = _Wanted(everything=True)
        self._longest_wait = CLOCK_SECONDS

    def look_at_all(self) -> None:
        """Look again at all guests, soon."""
        with self._lock:
            self._wanted.everything = True
        self._wake.set()

    def look_at(self, key: GuestKey) -> None:
        """Look again at one guest, soon."""
        with self._lock:
            self._wanted.guests.add(key)
        self._wake.set()

    def folder_changed(self, folder: str) -> None:
        """Note that a libvirt guest has started or stopped."""
        self.libvirt.folder_changed(folder)

    def is_leaving(self, key: GuestKey) -> bool:
        """Whether libvirt has said that a guest goes on at another host, and nothing since."""
        return key in self._leaving

    def run(self) -> None:
        """Look when told; does not return."""
        self.libvirt.start()
        while True:
            worker.attempt("look", self._turn)
            worker.attempt("next look", self._plan_next_look)
            time.sleep(_PAUSE)
            if not self._wake.wait(self._longest_wait):
                self.look_at_all()
            self._wake.clear()

    def _plan_next_look(self) -> None:
        """Find out when the next port's time ends, which no event tells."""
        records, _ = self.publisher.state.all()
        left = [r.until - time.time() for r in records.values() if r.until is not None]
        # If a port is still there after its time, libvirt did not answer: that must not be a loop.
        self._longest_wait = min(
            [CLOCK_SECONDS, *(seconds + _PAUSE if seconds > 0 else _RETRY for seconds in left)]
        )

    def _tell(self, news: News) -> None:
        """Note what libvirt tells, in one of its threads."""
        key = GuestKey(news.driver, news.uuid)
        if news.kind == "connected":
            self.look_at_all()
        elif news.kind == "leaving":
            self._leaving.add(key)
        elif news.kind == "guest":
            self._leaving.discard(key)
            self.look_at(key)
        elif news.kind == "agent":
            with self._lock:
                self._wanted.agents.add(key)
            self._wake.set()

    def _turn(self) -> None:
        with self._lock:
            wanted, self._wanted = self._wanted, _Wanted()
        if wanted.everything:
            worker.attempt("all guests", self._look_at_all)
            self.has_looked.set()
        for key in sorted(wanted.agents):
            worker.attempt(f"agent of {key}", partial(self._ask_agent, key))
        for key in sorted(wanted.guests):
            worker.attempt(f"guest {key}", partial(self._look_at, key))

    def _look_at_all(self) -> None:
        self._log.write(reconcile.sync(self.publisher, [*self._drivers(), XL]))
        memory.give_back()

    def _drivers(self) -> list[str]:
        """Return the drivers to ask: their daemon runs, and they have guests or had some."""
        recorded = {key.driver for key in self.publisher.state.all()[0]}
        return [
            driver
            for driver in DRIVERS
            if self.libvirt.is_daemon_running(driver)
            and (driver in recorded or self.libvirt.has_guests(driver))
        ]

    def _look_at(self, key: GuestKey) -> None:
        done = refresh(self.publisher, key, lambda: self.libvirt.definition(key.driver, key.id))
        if done.published:
            self._log.published(done.published)
        if done.withdrawn:
            self._log.withdrawn(done.withdrawn)
        if done.problem:
            self._log.problem(done.problem)

    def _ask_agent(self, key: GuestKey) -> None:
        record = self.publisher.state.peek(key)
        if record and record.guest.leased and not record.translated:
            ask_neighbours(self.publisher, key, self.libvirt.agent_addresses(key.driver, key.id))

"""One connection to libvirt that stays open while a guest runs, and the thread that keeps it.

All waiting for libvirt is done in threads: a stopped daemon accepts a connection and never
answers, and no caller must hang for that. While a hook runs, many calls to libvirt block, so the
thread makes only calls that do not list guests.

A connection must not start a daemon, nor keep one running that would end by itself: libvirtd with
``--timeout`` ends only if no guest runs and nobody is connected. So a connection is opened only to
a daemon that runs already, and is kept only while a guest of its driver runs, which libvirt's own
status files say.
"""

from __future__ import annotations

import os
import threading
import time

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import HypervisorError
from cgw_hooks.host.libvirt_library import URIS, library, process_of, silence, start_event_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: The daemons of each driver, libvirt's docs/daemons.rst; their pid files are /run/NAME.pid.
DAEMONS = {
    "qemu": ("libvirtd", "virtqemud"),
    "lxc": ("libvirtd", "virtlxcd"),
    "libxl": ("libvirtd", "virtxend"),
}
#: Metadata events name the namespace; those of other programs are none of ours.
_OUR_NAMESPACES = "urn:cgw-hooks:"
#: Seconds between keepalive messages, and how many may stay unanswered: 19 s until a daemon that
#: hangs is noticed.
_KEEPALIVE = (5, 3)
#: Seconds that a caller waits for a connection; libvirt itself gives a guest's agent 5 s.
LONGEST_WAIT = 10.0
#: Seconds for which a connection is kept after the last guest: its end is told after the end of its
#: status file.
_LINGER = 5.0
#: Seconds between attempts to reach a daemon while its guests run.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
#: Seconds for which a daemon that has closed the connection is left alone. It may be about to end:
#: for a client that connects before that, systemd starts it again.
_LONGEST_END = 5.0
#: virDomainEventType: STARTED, RESUMED (also at the end of a migration), STOPPED, CRASHED.
_LIFECYCLE = {2, 4, 5, 8}
#: SUSPENDED, with the details MIGRATED and POSTCOPY: the guest goes on at another host.
_SUSPENDED, _BY_MIGRATION = 3, {1, 7}
_AGENT_CONNECTED = 1  # VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED


class News(NamedTuple):
    """One piece of news: "look again". Its content is not to be trusted for more.

    ``kind`` is "guest" (this guest has started, stopped or changed), "leaving" (it migrates, and
    goes on elsewhere), "agent" (its agent has connected), "connected" (look at all guests of the
    driver: news may have been missed before) or "lost" (libvirt does not answer any more).
    """

    kind: str
    driver: str
    uuid: str = ""


class Connection(threading.Thread):
    """The connection to one driver, and the thread that opens and closes it."""

    def __init__(self, driver: str, tell: Callable[[News], None], run_directory: str) -> None:
        super().__init__(name=f"libvirt-{driver}", daemon=True)
        self.driver = driver
        self.folder = os.path.join(run_directory, "libvirt", driver)
        self._tell = tell
        self._daemons = [
            (name, os.path.join(run_directory, f"{name}.pid")) for name in DAEMONS[driver]
        ]
        self._condition = threading.Condition()
        # The following are changed only with the condition held.
        self._connection: Any = None
        self._is_broken = False
        self._callbacks: list[int] = []
        self._must_look = True
        self._must_end = False
        self._users = 0
        self._failures = 0
        self._process: int | None = None  # the last one that was seen, and until when it is left
        self._left_until = 0.0

    # -- for other threads, which this never lets wait for libvirt ---------------------------

    @property
    def is_connected(self) -> bool:
        """Whether news is heard now."""
        return self._connection is not None and not self._is_broken

    def is_daemon_running(self) -> bool:
        """Whether a daemon of this driver runs."""
        return process_of(self._daemons) is not None

    def has_guests(self) -> bool:
        """Whether libvirt has a status file of any guest of this driver."""
        try:
            return any(name.endswith(".xml") for name in os.listdir(self.folder))
        except OSError:
            return False

    def look(self) -> None:
        """Find out again whether the connection is needed and can be had."""
        with self._condition:
            self._must_look = True
            self._condition.notify_all()

    def end(self) -> None:
        """Let the thread close the connection and end."""
        with self._condition:
            self._must_end = True
            self._condition.notify_all()

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """Ask on the open connection, or on one that is opened for this question."""
        with self._condition:
            failures = self._failures
            self._users += 1
            self._must_look = True
            self._condition.notify_all()
            try:
                self._condition.wait_for(
                    lambda: self.is_connected or self._failures != failures, LONGEST_WAIT
                )
                connection = self._connection if self.is_connected else None
            except BaseException:
                self._users -= 1
                raise
        try:
            if connection is None:
                raise silence(self.driver, "it does not answer")
            return question(connection)
        finally:
            with self._condition:
                self._users -= 1
                self._must_look = True
                self._condition.notify_all()

    def ask_once(self, question: Callable[[Any], Any]) -> Any:
        """Ask on a connection of its own that may write."""
        if not self.is_daemon_running():
            raise silence(self.driver, "it does not run")
        libvirt = library()
        try:
            connection = libvirt.open(URIS[self.driver])
            try:
                return question(connection)
            finally:
                connection.close()
        except libvirt.libvirtError as error:
            raise silence(self.driver, error.get_error_message()) from error

    # -- this thread -------------------------------------------------------------------------

    def run(self) -> None:
        """Open and close the connection as needed, until the end."""
        pause, idle_since = _FIRST_PAUSE, None
        while self._wait(pause):
            is_wanted, now = self._is_wanted(), time.monotonic()
            idle_since = None if is_wanted else idle_since or now
            is_idle = idle_since is not None and now - idle_since >= _LINGER
            if self._connection is not None and (self._is_broken or is_idle):
                self._close()
            if is_wanted and self._connection is None:
                is_open = self._may_open() and self._open()
                pause = _FIRST_PAUSE if is_open else min(pause * 2, _LONGEST_PAUSE)
                if not is_open:
                    with self._condition:
                        self._failures += 1
                        self._condition.notify_all()
        if self._connection is not None:
            self._close()

    def _wait(self, pause: float) -> bool:
        """Wait until there is something to do; return False at the end.

        Only while guests run that libvirt does not answer for is it looked at again by the clock:
        a daemon that was killed leaves its pid file, and no event tells that it is back.
        """
        with self._condition:
            if not (self._must_look or self._must_end):
                is_connected, is_wanted = self._connection is not None, self._is_wanted()
                longest = {(False, True): pause, (True, False): _LINGER}
                self._condition.wait(longest.get((is_connected, is_wanted)))
            self._must_look = False
            return not self._must_end

    def _is_wanted(self) -> bool:
        return bool(self._users) or self.has_guests()

    def _may_open(self) -> bool:
        """Whether a daemon runs that is not about to end."""
        former, self._process = self._process, process_of(self._daemons)
        may_open = self._process != former or time.monotonic() >= self._left_until
        return may_open and self._process is not None

    def _open(self) -> bool:
        """Open the connection and hear its events; return whether that has worked.

        This hangs as long as the daemon does.
        """
        try:
            libvirt = library()
            start_event_loop(libvirt)
        except HypervisorError:
            return False
        try:
            connection = libvirt.openReadOnly(URIS[self.driver])
        except libvirt.libvirtError:
            return False
        try:
            connection.setKeepAlive(*_KEEPALIVE)
            connection.registerCloseCallback(self._on_close, None)
            self._register(libvirt, connection)
        except libvirt.libvirtError:
            self._end(libvirt, connection)
            return False
        with self._condition:
            self._connection, self._is_broken = connection, False
            self._condition.notify_all()
        self._tell(News("connected", self.driver))
        if not connection.isAlive():  # it ended before its end would have been noted
            self._on_close(connection, 0, None)
        return True

    def _register(self, libvirt: Any, connection: Any) -> None:
        """Ask for the events. A driver that does not know one of them does not have it."""
        events: list[tuple[int, Callable[..., None]]] = [
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, self._on_metadata),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, self._on_device),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._on_device),
            (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._on_agent),
        ]
        self._callbacks = []
        for number, callback in events:
            try:
                added = connection.domainEventRegisterAny(None, number, callback, None)
                self._callbacks.append(added)
            except libvirt.libvirtError:
                if number == libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE:
                    raise

    def _close(self) -> None:
        with self._condition:
            connection, self._connection = self._connection, None
            was_broken, self._is_broken = self._is_broken, False
        self._end(library(), connection)
        if was_broken:
            self._left_until = time.monotonic() + _LONGEST_END
            self._tell(News("lost", self.driver))

    def _end(self, libvirt: Any, connection: Any) -> None:
        """Close a connection. Each callback holds a reference, which keeps it open."""
        steps = [
            lambda n=number: connection.domainEventDeregisterAny(n) for number in self._callbacks
        ]
        for step in (*steps, connection.unregisterCloseCallback, connection.close):
            try:
                step()
            except libvirt.libvirtError:
                continue

    # -- the thread of libvirt's event loop, which must not call libvirt ----------------------

    def _on_close(self, _connection: Any, _reason: int, _: object) -> None:
        with self._condition:
            self._is_broken = self._connection is not None
            self._must_look = True
            self._condition.notify_all()

    def _on_lifecycle(self, _: Any, domain: Any, event: int, detail: int, _data: object) -> None:
        if event in _LIFECYCLE:
            self._tell_of("guest", domain)
        elif event == _SUSPENDED and detail in _BY_MIGRATION:
            self._tell_of("leaving", domain)
        self.look()

    def _on_metadata(self, _: Any, domain: Any, _kind: int, uri: str, _data: object) -> None:
        if uri and uri.startswith(_OUR_NAMESPACES):
            self._tell_of("guest", domain)

    def _on_device(self, _: Any, domain: Any, _alias: str, _data: object) -> None:
        self._tell_of("guest", domain)

    def _on_agent(self, _: Any, domain: Any, state: int, _reason: int, _data: object) -> None:
        if state == _AGENT_CONNECTED:
            self._tell_of("agent", domain)

    def _tell_of(self, kind: str, domain: Any) -> None:
        self._tell(News(kind, self.driver, str(domain.UUIDString()).lower()))

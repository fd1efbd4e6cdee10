"""libvirt's binding for Python: loading it, its event loop, and whether a daemon of libvirt runs.

No hook call loads this module.
"""

from __future__ import annotations

import threading
import time

from cgw_hooks.errors import HypervisorError, HypervisorHangs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

URIS = {"qemu": "qemu:///system", "lxc": "lxc:///system", "libxl": "xen:///system"}

#: Seconds. A daemon that systemd starts for this connection answers within them.
LONGEST_OPEN = 30.0

_loop_lock = threading.Lock()
_loops: list[threading.Thread] = []


def start_event_loop(libvirt: Any) -> None:
    """Start libvirt's event loop, one per process; it must exist before the first connection."""
    with _loop_lock:
        if _loops:
            return
        libvirt.virEventRegisterDefaultImpl()

        def run() -> None:
            while True:
                libvirt.virEventRunDefaultImpl()

        loop = threading.Thread(target=run, name="libvirt-events", daemon=True)
        _loops.append(loop)
        loop.start()


def library() -> Any:
    """Return the binding. Raises ``HypervisorError`` if it is not installed."""
    try:
        import libvirt
    except ImportError as error:
        raise HypervisorError(
            "libvirt", f"the binding cannot be loaded ({error})",
            "install it: apt install python3-libvirt",
        ) from error  # fmt: skip
    # Without a handler the binding also prints every error on stderr.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt


def process_of(daemons: Iterable[tuple[str, str]]) -> int | None:
    """Return the process of the first of these daemons that lives, else None.

    A daemon is its name and its pid file, which it leaves behind if it is killed.
    """
    for name, pid_file in daemons:
        try:
            with open(pid_file, encoding="ascii") as file:
                pid = int(file.read())
            with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                if file.read().strip() == name[:15]:
                    return pid
        except (OSError, ValueError):
            continue
    return None


def silence(driver: str, why: object) -> HypervisorError:
    """Return the error of a daemon that does not answer."""
    return HypervisorError(
        "libvirt", f"it does not answer at {URIS[driver]} ({why})", "start it, then run: cgw sync"
    )


class _Attempt(threading.Thread):
    """Opens one connection; a daemon that hangs keeps this thread, and no caller."""

    def __init__(self, driver: str, *, writing: bool) -> None:
        super().__init__(name=f"opening-{driver}", daemon=True)
        self._driver, self._writing = driver, writing
        self._lock = threading.Lock()
        self._is_given_up = False
        self._connection: Any = None
        self._error: HypervisorError | None = None

    def run(self) -> None:
        try:
            libvirt = library()
        except HypervisorError as error:
            self._error = error
            return
        open_it = libvirt.open if self._writing else libvirt.openReadOnly
        try:
            connection = open_it(URIS[self._driver])
        except libvirt.libvirtError as error:
            self._error = silence(self._driver, error.get_error_message())
            return
        with self._lock:
            self._connection = connection
            if self._is_given_up:
                connection.close()

    def has_ended(self, seconds: float) -> bool:
        """Wait for so many seconds; return whether this has ended."""
        self.join(seconds)
        return not self.is_alive()

    def result(self, seconds: float) -> Any:
        """Return the connection, within so many seconds. Raises ``HypervisorError``."""
        self.join(seconds)
        with self._lock:
            self._is_given_up = self._connection is None
        if self._error:
            raise self._error
        if self._is_given_up:
            raise _hangs(self._driver)
        return self._connection


#: The last one of each driver: one thread waits for a daemon that hangs, not one per question.
_last: dict[str, _Attempt] = {}


class Opening:
    """A connection that is being opened.

    libvirt itself waits without a limit, and Python handles no Ctrl-C meanwhile. Several drivers
    that are opened side by side take no longer than one.
    """

    def __init__(self, driver: str, *, writing: bool = False) -> None:
        self._driver, self._writing = driver, writing
        self._deadline = time.monotonic() + LONGEST_OPEN
        self._former = _last.get(driver)
        is_waiting = self._former is not None and self._former.is_alive()
        self._attempt = None if is_waiting else self._begun()

    def result(self) -> Any:
        """Return the connection. Raises ``HypervisorError``, ``HypervisorHangs`` among them."""
        if self._attempt is None:
            if self._former and not self._former.has_ended(self._left()):
                raise _hangs(self._driver)
            self._attempt = self._begun()
        return self._attempt.result(self._left())

    def _begun(self) -> _Attempt:
        attempt = _last[self._driver] = _Attempt(self._driver, writing=self._writing)
        attempt.start()
        return attempt

    def _left(self) -> float:
        return max(self._deadline - time.monotonic(), 0.0)


def opened(driver: str, *, writing: bool = False) -> Any:
    """Return a new connection. Raises like ``Opening.result``."""
    return Opening(driver, writing=writing).result()


def _hangs(driver: str) -> HypervisorHangs:
    return HypervisorHangs(
        "libvirt",
        f"it hangs at {URIS[driver]} (no answer within {LONGEST_OPEN:.0f} s)",
        "restart it, then run: cgw sync",
    )

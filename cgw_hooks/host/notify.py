"""Tells systemd how the resident process is: sd_notify(3), without libsystemd.

Without ``NOTIFY_SOCKET`` (the process was not started by systemd) nothing is told.
"""

from __future__ import annotations

import os
import socket
import time

from cgw_hooks.errors import printable

#: Seconds. A service manager that does not read must not stop the process for longer.
_LONGEST_WAIT = 5.0


def ready(status: str) -> bool:
    """Say that the start or a reload is complete; ``status`` is for ``systemctl status``."""
    return _notify("READY=1", _status(status))


def status(text: str) -> bool:
    """Say in one line, for ``systemctl status``, how things are."""
    return _notify(_status(text))


def alive() -> bool:
    """Say that the process works. See ``watchdog_interval``."""
    return _notify("WATCHDOG=1")


def reloading() -> bool:
    """Say that the config is being read again; ``ready`` ends this.

    ``Type=notify-reload`` (systemd 253 and later) needs the time.
    """
    return _notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> bool:
    """Say that the process ends."""
    return _notify("STOPPING=1")


def watchdog_interval() -> float | None:
    """Return how often to call ``alive``, in seconds; None if nobody waits for it.

    This is half the unit's ``WatchdogSec=``, as sd_watchdog_enabled(3) recommends.
    """
    limit, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not limit.isdecimal() or int(limit) == 0 or process not in {"", str(os.getpid())}:
        return None
    return int(limit) / 2_000_000


def _status(text: str) -> str:
    """Return the line; a newline in a guest's name must not begin another one."""
    return f"STATUS={printable(text)}"


def _notify(*lines: str) -> bool:
    """Send lines to systemd; return whether it has them. A loss of one must not end anything."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.settimeout(_LONGEST_WAIT)
            to.sendto("\n".join(lines).encode(), address)
    except OSError:
        return False
    return True

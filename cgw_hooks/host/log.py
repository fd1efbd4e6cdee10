"""syslog: where a hook's words go that nobody would see otherwise."""

from __future__ import annotations

import os
import sys
import syslog


def error(message: str) -> None:
    """Something failed that a person must know of.

    ``cgw install`` sets CGW_ERRORS_TO_STDERR when it tests the hook: it must see why it failed.
    """
    if os.environ.get("CGW_ERRORS_TO_STDERR"):
        sys.stderr.write(f"cgw: {message}\n")
    _write(syslog.LOG_ERR, message)


def notice(message: str) -> None:
    """Ports were published or taken back."""
    _write(syslog.LOG_NOTICE, message)


def _write(priority: int, message: str) -> None:
    syslog.openlog("cgw", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(priority, message)

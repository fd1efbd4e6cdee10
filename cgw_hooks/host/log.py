"""syslog, for a hook's messages that nobody would see otherwise."""

from __future__ import annotations

import os
import sys
import syslog


def error(message: str) -> None:
    """Log a failure that people must know about.

    ``cgw install`` sets CGW_ERRORS_TO_STDERR when it tests the hook, since it must see the
    reason of a failure.
    """
    if os.environ.get("CGW_ERRORS_TO_STDERR"):
        sys.stderr.write(f"cgw: {message}\n")
    _write(syslog.LOG_ERR, message)


def notice(message: str) -> None:
    """Log that ports were published or withdrawn."""
    _write(syslog.LOG_NOTICE, message)


def _write(priority: int, message: str) -> None:
    syslog.openlog("cgw", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(priority, message)

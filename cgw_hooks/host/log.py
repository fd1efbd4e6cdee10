"""syslog: where a hook's words go that nobody would see otherwise."""

from __future__ import annotations

import syslog


def error(message: str) -> None:
    """Something failed that a person must know of."""
    _write(syslog.LOG_ERR, message)


def notice(message: str) -> None:
    """Ports were published or taken back."""
    _write(syslog.LOG_NOTICE, message)


def _write(priority: int, message: str) -> None:
    syslog.openlog("cgw", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(priority, message)

"""The log, for messages of hooks and of the agent that nobody would see otherwise.

Where journald runs, a message has fields, so that programs need not read its text: those of
systemd.journal-fields(7), and those that begin with ``CGW_``. Elsewhere it goes to syslog. Hook
calls load this module: it must import little.
"""

from __future__ import annotations

import _socket
import os
import sys
import syslog

#: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
_JOURNAL = "/run/systemd/journal/socket"
#: Seconds. A journald that hangs must not stop a guest for longer.
_LONGEST_WAIT = 1.0

#: Who carries out hook calls in this process: "agent", or "call" for that of the hook itself.
served_by = "call"


def error(message: str, **fields: str) -> None:
    """Log a failure that people must know about. ``fields`` are those of ``notice``.

    ``cgw install`` sets CGW_ERRORS_TO_STDERR when it tests the hook, since it must see the
    reason of a failure.
    """
    if os.environ.get("CGW_ERRORS_TO_STDERR"):
        sys.stderr.write(f"cgw: {message}\n")
    _write(syslog.LOG_ERR, message, fields)


def notice(message: str, **fields: str) -> None:
    """Log that ports were published or withdrawn.

    ``fields`` are for programs: ``event``, ``guest`` (its name), ``id`` (its key), ``uuid``,
    ``operation``, ``by``, ``ports``, ``code`` (of a problem) and ``user``. Empty ones are left out.
    """
    _write(syslog.LOG_NOTICE, message, fields)


def _write(priority: int, message: str, fields: dict[str, str]) -> None:
    if not _told_journal(priority, message, fields):
        syslog.openlog("cgw", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(priority, message)


def _told_journal(priority: int, message: str, fields: dict[str, str]) -> bool:
    """Send a message to journald; return whether it has it, or hangs."""
    own = {f"CGW_{name.upper()}": value for name, value in fields.items() if value}
    entry = {
        "MESSAGE": message,
        "PRIORITY": str(priority),
        "SYSLOG_IDENTIFIER": "cgw",
        "SYSLOG_FACILITY": str(syslog.LOG_DAEMON >> 3),
        "SYSLOG_PID": str(os.getpid()),
        "CGW_SERVED_BY": served_by,
        **own,
    }
    data = b"".join(_field(name, value) for name, value in entry.items())
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        channel.settimeout(_LONGEST_WAIT)
        channel.sendto(data, _JOURNAL)
    except TimeoutError:  # syslog(3) would wait for the same journald, and without an end
        return True
    except OSError:  # there is no journald, or the message is too long for it
        return False
    finally:
        channel.close()
    return True


def _field(name: str, value: str) -> bytes:
    """Return one field. A value with a newline has its length before it, so it begins no other."""
    packed = value.encode("utf-8", "backslashreplace")
    if b"\n" not in packed:
        return name.encode() + b"=" + packed + b"\n"
    return name.encode() + b"\n" + len(packed).to_bytes(8, "little") + packed + b"\n"

"""Reads what cgw has logged: from the journal, or from the files of syslog.

Any user may write to the journal, also in the name of cgw, but not as root: journald notes who it
was. The files of syslog do not tell.
"""

from __future__ import annotations

import json
import subprocess
from collections import deque
from datetime import datetime

from cgw_hooks.core.log_entry import FIELDS, LogEntry, from_journal, from_syslog
from cgw_hooks.errors import NotFound, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_OWN = ("SYSLOG_IDENTIFIER=cgw", "_UID=0")
#: As rsyslog of Debian, and of others, writes them; the older one first.
_FILES = ("/var/log/syslog.1", "/var/log/syslog", "/var/log/messages.1", "/var/log/messages")


def entries(guest: str | None, since: float | None, count: int | None) -> Iterator[LogEntry]:
    """Yield the entries, the oldest first.

    ``guest`` is the name or uuid of the only guest, ``since`` is in seconds since 1970, and
    ``count`` is how many of the last ones. Raises ``NotFound`` if there is no log.
    """
    command = [
        *("journalctl", "--quiet", "--no-pager", "--all", "--output=json"),
        "--output-fields=" + ",".join(["MESSAGE", "PRIORITY", *map(_name, FIELDS)]),
        *([f"--since=@{since:.6f}"] if since is not None else []),
        *([f"--lines={count}"] if count is not None else []),
        *_matches(guest),
    ]
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except FileNotFoundError:
        yield from _of_files(guest, since, count, reason="there is no journalctl")
        return
    lines = done.stdout.splitlines()
    if not lines:  # journald keeps nothing here, or does not run
        reason = done.stderr.decode("utf-8", "replace").strip() if done.returncode else ""
        yield from _of_files(guest, since, count, reason)
    for line in lines:
        try:
            yield from_journal(json.loads(line))
        except ValueError:
            continue


def _name(field: str) -> str:
    return f"CGW_{field.upper()}"


def _matches(guest: str | None) -> list[str]:
    if guest is None:
        return [*_OWN]
    return [*_OWN, f"CGW_GUEST={guest}", "+", *_OWN, f"CGW_UUID={guest}"]


def _of_files(
    guest: str | None, since: float | None, count: int | None, reason: str
) -> Iterable[LogEntry]:
    """Return the entries of the files. Raises ``NotFound`` if there is no file, for a reason."""
    now = datetime.now().astimezone()
    found: deque[LogEntry] = deque(maxlen=count)
    is_there = False
    for path in _FILES:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                is_there = True
                read = (from_syslog(line.rstrip("\n"), now) for line in file)
                found.extend(entry for entry in read if entry and _is_wanted(entry, guest, since))
        except FileNotFoundError:
            continue
    if reason and not is_there:
        raise NotFound("log", f"{quoted(reason)}, and no file of syslog", f"see: {_FILES[1]}")
    return found


def _is_wanted(entry: LogEntry, guest: str | None, since: float | None) -> bool:
    return (since is None or entry.time >= since) and (guest is None or entry.is_about(guest))

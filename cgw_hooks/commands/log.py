"""``cgw log [GUEST]``: who published what, and when."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cgw_hooks.commands.json_output import print_json
from cgw_hooks.commands.status_table import table
from cgw_hooks.core.log_entry import FIELDS
from cgw_hooks.errors import printable
from cgw_hooks.host.journal import entries

if TYPE_CHECKING:
    from cgw_hooks.core.log_entry import LogEntry
    from cgw_hooks.core.parse.log_time import Since

#: The version of the JSON: it changes if a member is removed or gets another meaning.
_VERSION = 1
_HEADINGS = ("TIME", "GUEST", "EVENT", "BY", "WHAT")
_DEFAULT_COUNT = 50


def run(guest: str | None, since: Since | None, count: int | None, *, as_json: bool) -> int:
    """Print entries, the oldest first. Raises ``NotFound`` if there is no log."""
    now = datetime.now().astimezone()
    begin = since.moment(now).timestamp() if since else None
    if since is None and count is None:
        count = _DEFAULT_COUNT
    found = [*entries(guest, begin, count)]
    if as_json:
        print_json({"version": _VERSION, "entries": [_object(entry) for entry in found]})
    elif found:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        cells = [_HEADINGS, *map(_cells, found)]
        sys.stdout.write("".join(f"{line}\n" for line in table(cells, width)))
    else:
        sys.stdout.write("Nothing is logged.\n")
    return 0


def _object(entry: LogEntry) -> dict[str, Any]:
    return {
        "time": datetime.fromtimestamp(entry.time, UTC).isoformat(timespec="milliseconds"),
        **{name: entry.fields.get(name) for name in FIELDS},
        "is_error": entry.is_error,
        "message": entry.message,
    }


def _cells(entry: LogEntry) -> tuple[str, ...]:
    fields = entry.fields
    moment = datetime.fromtimestamp(entry.time).astimezone()
    by, operation = fields.get("by", "-"), fields.get("operation")
    if fields.get("user"):
        by = fields["user"]
    elif operation:
        by = f"{by} {operation}"
    return (
        moment.strftime("%Y-%m-%d %H:%M:%S"),
        printable(fields.get("guest", "-")),
        printable(fields.get("event", "-")),
        printable(by),
        printable(fields.get("ports") or entry.message),
    )

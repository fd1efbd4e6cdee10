"""``cgw status`` for people: the table of published ports."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from cgw_hooks.commands.status import Row, Status


def print_status(found: Status) -> None:
    """Print a line to each published port; on stderr, one to each problem."""
    console = Console(soft_wrap=True, highlight=False)
    if not found.rows and not found.problems:
        console.print("Nothing is published.")
    if found.rows:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("GUEST", "LISTEN", "TARGET", "FROM", "SINCE", "STATE"):
            table.add_column(heading, no_wrap=True)
        for row in found.rows:
            table.add_row(*(Text(text) for text in _cells(row)))
        console.print(table)
    for problem in dict.fromkeys(row.problem for row in found.rows if row.problem):
        sys.stderr.write(f"cgw: {problem}\n")
    for problem in found.problems:
        sys.stderr.write(f"cgw: {problem}\n")


def _cells(row: Row) -> tuple[str, ...]:
    since = datetime.fromtimestamp(row.record.since).astimezone()
    day = "" if since.date() == datetime.now().astimezone().date() else since.strftime("%Y-%m-%d ")
    port = row.port
    return (
        row.record.guest.name,
        port.listen if port else "-",
        port.target if port else "-",
        ", ".join(map(str, port.sources)) if port and port.sources else "anywhere",
        day + since.strftime("%H:%M:%S"),
        row.state,
    )

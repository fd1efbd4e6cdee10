"""``cgw status`` for people: the table of published ports."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cgw_hooks.errors import printable

if TYPE_CHECKING:
    from cgw_hooks.node.diagnosis import Diagnosis, Row

#: What is not for a terminal is never cut: no line that cgw prints is as wide.
_WIDE = 1 << 16


def print_status(found: Diagnosis) -> None:
    """Print a line to each published port; on stderr, one to each problem."""
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console = Console(soft_wrap=True, highlight=False, color_system=None, width=_WIDE)
    if found.rows:
        console.print(_table(found.rows, folds=console.is_terminal))
    elif not found.problems:
        console.print("Nothing is published.")
    problems = [*(row.problem for row in found.rows if row.problem), *found.problems]
    for problem in dict.fromkeys(map(str, problems)):
        sys.stderr.write(f"cgw: {printable(problem)}\n")


def _table(rows: list[Row], *, folds: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("GUEST", "LISTEN", "TARGET", "FROM", "SINCE", "STATE"):
        table.add_column(heading, no_wrap=not folds, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(text)) for text in _cells(row)))
    return table


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

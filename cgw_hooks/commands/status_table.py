"""``cgw status`` for people: the table of published ports, and a line to each problem."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING

from cgw_hooks.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cgw_hooks.node.diagnosis import Diagnosis, Row

_HEADINGS = ("GUEST", "LISTEN", "TARGET", "FROM", "SINCE", "STATE")
_GAP = "  "
#: A column of a terminal is never narrower: one character may take two places.
_NARROWEST = 2


def print_status(found: Diagnosis) -> None:
    """Print a line to each published port; on stderr, one to each problem.

    Only a terminal's width folds a line; whatever is piped or redirected is never cut.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if found.rows:
        today = datetime.now().astimezone().date().isoformat()
        cells = [_HEADINGS, *(_cells(row, today) for row in found.rows)]
        sys.stdout.write("".join(f"{line}\n" for line in table(cells, width)))
    elif not found.problems:
        sys.stdout.write("Nothing is published.\n")
    problems = [*(row.problem for row in found.rows if row.problem), *found.problems]
    for problem in dict.fromkeys(problems):
        sys.stderr.write(f"cgw: {printable(str(problem))}\n")


def table(rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """The lines of a table; cells are folded where it is wider than ``width`` (None: never)."""
    widths = [max(map(_places, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        widths = _narrowed(widths, width - len(_GAP) * (len(widths) - 1))
    for row in rows:
        folded = [_folded(cell, places) for cell, places in zip(row, widths, strict=True)]
        for pieces in zip_longest(*folded, fillvalue=""):
            yield _GAP.join(map(_padded, pieces, widths)).rstrip()


def _narrowed(widths: list[int], available: int) -> list[int]:
    """The widths, the widest columns cut down until all of them fit."""
    limit = max(widths)
    while limit > _NARROWEST and sum(min(w, limit) for w in widths) > available:
        limit -= 1
    return [min(places, limit) for places in widths]


def _folded(text: str, places: int) -> list[str]:
    """A text in pieces that take so many places at most."""
    if _places(text) <= places:
        return [text]
    pieces, taken = [""], 0
    for character in text:
        needed = _places(character)
        if taken + needed > places:
            pieces.append("")
            taken = 0
        pieces[-1] += character
        taken += needed
    return pieces


def _padded(text: str, places: int) -> str:
    return text + " " * (places - _places(text))


def _places(text: str) -> int:
    """How many places of a terminal's line a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _cells(row: Row, today: str) -> tuple[str, ...]:
    port = row.port
    return (
        printable(row.record.guest.name),
        port.listen if port else "-",
        port.target if port else "-",
        ", ".join(map(str, port.sources)) if port and port.sources else "anywhere",
        _since(row.record.since, today),
        row.state,
    )


def _since(seconds: float, today: str) -> str:
    """A time of today, or a day and a time, of the node's own clock; "-" where there is none."""
    if not seconds:
        return "-"
    since = datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return since.removeprefix(f"{today} ")

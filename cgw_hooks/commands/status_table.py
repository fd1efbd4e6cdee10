"""``cgw status`` for people: a table of the published ports, and one line per problem."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING

from cgw_hooks.commands.amounts import missing_bytes, size
from cgw_hooks.errors import printable
from cgw_hooks.node.figures import figures_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cgw_hooks.core.diagnosis import Diagnosis, Row
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.node.figures import Figures

_HEADINGS = ("GUEST", "LISTEN", "TARGET", "FROM", "SINCE", "STATE")
_FIGURES = ("CONNECTIONS", "OPEN")
_TOTALS, _OPEN_BYTES = ("RECEIVED", "SENT"), ("RECEIVED (OPEN)", "SENT (OPEN)")
_GAP = "  "
#: The smallest width of a column, since one character may take two cells of a terminal.
_NARROWEST = 2


def print_status(found: Diagnosis, figures: Mapping[PublishedPort, Figures] | None = None) -> None:
    """Print one line per published port, and on stderr one line per problem.

    Lines are folded only on a terminal. Piped or redirected output is never cut.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if found.rows:
        today = datetime.now().astimezone().date().isoformat()
        cells = [_HEADINGS, *(_cells(row, today) for row in found.rows)]
        if figures is not None:
            of_rows = [figures_of(row, figures) for row in found.rows]
            cells = [(*a, *b) for a, b in zip(cells, _figures(of_rows), strict=True)]
        sys.stdout.write("".join(f"{line}\n" for line in table(cells, width)))
        if any(each.open_traffic is None for each in (figures or {}).values()):
            sys.stderr.write(missing_bytes())
    elif not found.problems:
        sys.stdout.write("Nothing is published.\n")
    problems = [*(row.problem for row in found.rows if row.problem), *found.problems]
    for problem in dict.fromkeys(problems):
        sys.stderr.write(f"cgw: {printable(str(problem))}\n")


def table(rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """Yield the lines of a table; cells are folded if it is wider than ``width`` (None: never)."""
    widths = [max(map(_places, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        widths = _narrowed(widths, width - len(_GAP) * (len(widths) - 1))
    for row in rows:
        cells = [folded(cell, places) for cell, places in zip(row, widths, strict=True)]
        for pieces in zip_longest(*cells, fillvalue=""):
            yield _GAP.join(map(_padded, pieces, widths)).rstrip()


def _narrowed(widths: list[int], available: int) -> list[int]:
    """Return the widths, with the widest columns reduced until all of them fit."""
    limit = max(widths)
    while limit > _NARROWEST and sum(min(w, limit) for w in widths) > available:
        limit -= 1
    return [min(places, limit) for places in widths]


def folded(text: str, places: int) -> list[str]:
    """Split a printable text into pieces of at most ``places`` cells of a terminal's line."""
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
    """Return how many cells of a terminal's line a printable text takes."""
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
        _clients(port),
        _since(row.record.since, today),
        row.state,
    )


def _figures(of_rows: Sequence[Figures | None]) -> Iterator[tuple[str, ...]]:
    """Yield the headings and cells of figures; bytes of open connections if no others are known."""
    has_totals = any(each and each.traffic for each in of_rows)
    yield (*_FIGURES, *(_TOTALS if has_totals else _OPEN_BYTES))
    for each in of_rows:
        if each is None:
            yield ("-",) * 4
            continue
        traffic = each.traffic if has_totals else each.open_traffic
        yield (
            "-" if each.connections is None else str(each.connections),
            str(each.open),
            size(traffic.received if traffic else None),
            size(traffic.sent if traffic else None),
        )


def _clients(port: PublishedPort | None) -> str:
    """Format which clients may connect, and the limits for each of them."""
    sources = ", ".join(map(str, port.sources)) if port and port.sources else "anywhere"
    return f"{sources} ({port.limits})" if port and port.limits else sources


def _since(seconds: float, today: str) -> str:
    """Format the local time, with the date if it is not today; "-" if there is none."""
    if not seconds:
        return "-"
    since = datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return since.removeprefix(f"{today} ")

"""Cases that take turns in every round, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def take_turns(
    cases: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: int
) -> dict[str, list[float]]:
    """Measure each case in each round; the first `warm_up` rounds only fill the caches."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + warm_up):
        if sys.stderr.isatty():
            sys.stderr.write(f"\rround {number + 1} of {rounds + warm_up} ")
        for name, measure in cases.items():
            seconds = measure()
            if number >= warm_up:
                times[name].append(seconds)
    sys.stderr.write("\r" if sys.stderr.isatty() else "")
    return times


def print_ratios(heading: str, times: Mapping[str, list[float]], *notes: str) -> None:
    """Print each case's median, and its ratio to the first one's."""
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    whole = next(iter(medians.values()))
    table = Table(box=None, pad_edge=False)
    table.add_column(heading)
    for column in ("MEDIAN ms", "RATIO"):
        table.add_column(column, justify="right")
    for name, median in medians.items():
        table.add_row(name, f"{median * 1000:.1f}", f"{median / whole:.2f}")
    console = Console(width=100, highlight=False)
    console.print(table)
    for note in notes:
        console.print(note)

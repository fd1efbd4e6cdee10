"""What the return paths cost the packets, against plain routing and FULL-NAT in the same run.

    sudo make venv && sudo .venv/bin/python -m benchmarks.return_paths

The client comes in by one node, and the guest is on another one. All cases take turns in every
round, so that a busy machine slows all of them alike. A ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.return_path_case import PLAIN, Case, Figures, open_case
from cgw_hooks.core.node_config import CT_SYNC, FULL_NAT, STEER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Times = dict[tuple[str, bool], list[Figures]]

_FLOWS = 100_000
_WARM_UP = 2
_PERCENTILE = 99


def measure(cases: dict[str, Case], rounds: int) -> Times:
    """Let all cases take turns, with br_netfilter off and on."""
    times: Times = {(name, on): [] for on in (False, True) for name in cases}
    for number in range(rounds + _WARM_UP):
        if sys.stderr.isatty():
            sys.stderr.write(f"\rround {number + 1} of {rounds + _WARM_UP} ")
        for (name, on), figures in times.items():
            turn = cases[name].turn(br_netfilter=on)
            if number >= _WARM_UP:
                figures.append(turn)
    sys.stderr.write("\r" if sys.stderr.isatty() else "")
    return times


def _latency(turns: Iterable[Figures]) -> tuple[float, float]:
    """Median and 99th percentile of all asks, in ms."""
    asks = [seconds * 1000 for turn in turns for seconds in turn.asks]
    return statistics.median(asks), statistics.quantiles(asks, n=100)[_PERCENTILE - 1]


def _ratios(turns: Sequence[Figures], to: Sequence[Figures]) -> Figures:
    """Median of the rounds' ratios; the latency's is the only element of `asks`."""
    pairs = list(zip(turns, to, strict=True))
    median = statistics.median
    return Figures(
        [median(median(a.asks) / median(b.asks) for a, b in pairs)],
        *(
            median(getattr(a, name) / getattr(b, name) for a, b in pairs)
            for name in ("connections", "down", "up")
        ),
    )


def print_table(times: Times) -> None:
    """Print a row per case, each with its ratios to FULL-NAT."""
    table = Table(box=None, pad_edge=False)
    table.add_column("CASE")
    for heading in (
        "ASK ms", "RATIO", "p99 ms", "RATIO", "NEW/s", "RATIO", "DOWN Gbit/s", "RATIO",
        "UP Gbit/s", "RATIO",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for (name, on), turns in times.items():
        base = times[FULL_NAT, on]
        ratio, (median, tail), (_, whole) = _ratios(turns, base), _latency(turns), _latency(base)
        table.add_row(
            name + (", br_netfilter" if on else ""),
            f"{median:.2f}", f"{ratio.asks[0]:.2f}", f"{tail:.2f}", f"{tail / whole:.2f}",
            f"{statistics.median(t.connections for t in turns):,.0f}", f"{ratio.connections:.2f}",
            f"{statistics.median(t.down for t in turns):.1f}", f"{ratio.down:.2f}",
            f"{statistics.median(t.up for t in turns):.1f}", f"{ratio.up:.2f}",
        )  # fmt: skip
    Console(width=120, highlight=False).print(table)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What the return paths cost the packets.")
    parser.add_argument("--rounds", type=int, default=30, help="measurements of each case")
    parser.add_argument(
        "--return-paths",
        default=f"{FULL_NAT},{STEER},{CT_SYNC}",
        help=f"{FULL_NAT} must be one of them",
    )
    parser.add_argument("--flows", type=int, default=_FLOWS, help="to one port of the guest")
    arguments = parser.parse_args()
    names = arguments.return_paths.split(",")
    loads = [os.getloadavg()[0]]
    with ExitStack() as until_end:
        cases = {name: until_end.enter_context(open_case(name)) for name in (PLAIN, *names)}
        print_table(measure(cases, arguments.rounds))
        loads.append(os.getloadavg()[0])
        for name in names:
            print(f"{name}: {cases[name].flows(arguments.flows):,} of {arguments.flows:,} flows")
    print(
        f"{arguments.rounds} rounds; ratios to {FULL_NAT} in the same round. Load average at the"
        f" start {loads[0]:.1f}, at the end {loads[1]:.1f}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

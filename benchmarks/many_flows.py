"""What a hook call costs on a node that tracks very many UDP flows, against the same with few.

    sudo make bench

The flows go to another guest's port, as to a DNS server. Each figure is the median of its
rounds, in one run: first with few flows, then with many.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.turns import print_ratios
from tests.lab.flows import send_datagrams
from tests.netns.configs import NODE
from tests.netns.conftest import uplink_client, uplink_node
from tests.netns.guest import DONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.guest import Guest

_FEW = 10
_TABLE = "/proc/sys/net/netfilter/nf_conntrack_count"


def seconds(guest: Guest, operation: str) -> float:
    """Time one hook call."""
    started = time.perf_counter()
    finished = guest.hook(operation)
    spent = time.perf_counter() - started
    if finished != DONE:
        raise RuntimeError(f"{guest.name} {operation}: {finished}")
    return spent


def measured(
    guest: Guest, flows: int, rounds: int, *, warm_up: int
) -> Iterator[tuple[str, list[float]]]:
    """Start and stop the guest so often; yield each operation with its times."""
    times: dict[str, list[float]] = {"started": [], "stopped": []}
    for number in range(rounds + warm_up):
        for operation in ("prepare", "started", "stopped", "release"):
            spent = seconds(guest, operation)
            if operation in times and number >= warm_up:
                times[operation].append(spent)
    for operation, spent_all in times.items():
        yield f"{operation}, 5 UDP ports, {flows:,} flows", spent_all


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What a hook call costs among many flows.")
    parser.add_argument("--flows", type=int, default=180_000)
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each case")
    arguments = parser.parse_args()
    with (
        uplink_client() as client,
        tempfile.TemporaryDirectory(prefix="cgw-bench-") as folder,
        uplink_node(client, Path(folder)) as node,
    ):
        node.guest("others", "53:53/udp").start()
        guest = node.guest("web1", *(f"{port}:22/udp" for port in range(8000, 8005)))
        node.namespace.sysctl({"net/netfilter/nf_conntrack_udp_timeout": "3600"})

        def tracked() -> int:
            return int(node.namespace.call(lambda: Path(_TABLE).read_text(encoding="ascii")))

        send_datagrams(client.namespace, NODE[4], [53] * _FEW)
        times = dict(measured(guest, tracked(), arguments.rounds, warm_up=2))
        send_datagrams(client.namespace, NODE[4], [53] * arguments.flows)
        times |= measured(guest, tracked(), arguments.rounds, warm_up=2)
    few_started, few_stopped, started, stopped = map(statistics.median, times.values())
    print_ratios(
        "CASE",
        times,
        f"many flows against few: started {started / few_started:.2f}, "
        f"stopped {stopped / few_stopped:.2f}",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How long a published guest is silent while it migrates, with the hooks and without.

    sudo .venv/bin/python -m benchmarks.migration_gap

The same guest moves over every ordered pair of three nodes, under the same traffic and the
same ruleset; in every other round the hook script is put aside. Rounds take turns, so that
a busy machine slows both alike.
"""

import statistics
import sys
from collections import defaultdict

from rich.console import Console
from rich.table import Table

from tests.lab import migrating_guest as guest
from tests.lab.cluster import Cluster, migrate, open_cluster
from tests.lab.traffic import traffic, wait_for_answers

_ROUNDS = 3
_MILLISECONDS = 1000
_HOOK = "/etc/libvirt/hooks/qemu.d/50-cgw"
_CASES = {"with the hooks": ["mv", "/root/hook", _HOOK], "without": ["mv", _HOOK, "/root/hook"]}
#: What the pauses are of, in the order of the table's rows: (kind of traffic or move, case).
Pauses = defaultdict[tuple[str, str], list[float]]


def main() -> int:
    """Measure and print; 1 if a client noticed more than a pause."""
    pauses: Pauses = defaultdict(list)
    failures = moves = 0
    with open_cluster() as cluster:
        guest.start(cluster)
        for node in cluster.nodes:
            node.run(_CASES["without"])
        for _ in range(_ROUNDS):
            for case, command in _CASES.items():
                for node in cluster.nodes:
                    node.run(command)
                    node.reload_libvirtd()
                failures += _round(cluster, case, pauses)
            moves += len(guest.round_trip(cluster))
    table = Table("longest pause, ms", *_CASES, title=f"median (worst) of {moves} migrations")
    for row in dict.fromkeys(row for row, _ in sorted(pauses)):
        table.add_row(row, *(_cell(pauses[row, case]) for case in _CASES))
    Console().print(table)
    print(f"{failures} failures")
    return 1 if failures else 0


def _round(cluster: Cluster, case: str, pauses: Pauses) -> int:
    """Move the guest over every pair of nodes; how often a client noticed more than a pause."""
    failures = 0
    entries = guest.entries(cluster)
    for source, destination in guest.round_trip(cluster):
        with traffic(cluster.client, entries, guest.PORTS, guest.NAME) as streams:
            migrate(guest.NAME, source, destination)
            wait_for_answers(streams)
        for stream in streams:
            for row in (stream.kind, f"{source.name} to {destination.name}"):
                pauses[row, case].append(stream.longest_gap * _MILLISECONDS)
            failures += len(stream.failures)
    return failures


def _cell(milliseconds: list[float]) -> str:
    return f"{statistics.median(milliseconds):.0f} ({max(milliseconds):.0f})"


if __name__ == "__main__":
    sys.exit(main())

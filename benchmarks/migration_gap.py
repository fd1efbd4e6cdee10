"""For how long a published guest is silent while it migrates, with the hooks and without.

    sudo .venv/bin/python -m benchmarks.migration_gap

The same guest moves to and fro between two nodes, under the same traffic and the same
ruleset; in every other round the hook script is put aside. Rounds take turns, so that a
busy machine slows both alike.
"""

import statistics
import sys
from collections import defaultdict

from rich.console import Console
from rich.table import Table

from tests.lab import migrating_guest as guest
from tests.lab.cluster import Cluster, migrate, open_cluster
from tests.lab.traffic import traffic

_ROUNDS = 5
_MILLISECONDS = 1000
_HOOK = "/etc/libvirt/hooks/qemu.d/50-cgw"
_CASES = {"with the hooks": ["mv", "/root/hook", _HOOK], "without": ["mv", _HOOK, "/root/hook"]}


def main() -> int:
    """Measure and print; 1 if a client noticed more than a pause."""
    pauses: dict[tuple[str, str], list[float]] = defaultdict(list)
    failures = 0
    with open_cluster() as cluster:
        guest.start(cluster)
        for node in cluster.nodes:
            node.run(_CASES["without"])
        for _ in range(_ROUNDS):
            for case, command in _CASES.items():
                for node in cluster.nodes:
                    node.run(command)
                    node.reload_libvirtd()
                failures += _there_and_back(cluster, case, pauses)
    table = Table("longest pause, ms", *_CASES, title=f"median (worst) of {2 * _ROUNDS} migrations")
    for kind in dict.fromkeys(kind for kind, _ in pauses):
        table.add_row(kind, *(_cell(pauses[kind, case]) for case in _CASES))
    Console().print(table)
    print(f"{failures} failures")
    return 1 if failures else 0


def _there_and_back(cluster: Cluster, case: str, pauses: dict[tuple[str, str], list[float]]) -> int:
    first, second, _ = cluster.nodes
    failures = 0
    for source, destination in ((first, second), (second, first)):
        entries = guest.entries(cluster)
        with traffic(cluster.client, entries, guest.PORTS, guest.NAME) as streams:
            migrate(guest.NAME, source, destination)
        for stream in streams:
            pauses[stream.kind, case].append(stream.longest_gap * _MILLISECONDS)
            failures += len(stream.failures)
    return failures


def _cell(milliseconds: list[float]) -> str:
    return f"{statistics.median(milliseconds):.0f} ({max(milliseconds):.0f})"


if __name__ == "__main__":
    sys.exit(main())

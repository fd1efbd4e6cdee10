"""What the registry of the cluster costs: many guests at once, outages, a cold start, a hook call.

    sudo make venv && sudo .venv/bin/python -m benchmarks.registry

Three nodes with their agents and a real etcd of three members, all in network namespaces of this
machine. Hook calls are handed to the agents as client.pl does; no process is started for them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.turns import print_ratios, take_turns
from cgw_hooks.core.etcd.values import Delete, Put
from cgw_hooks.core.registry_value import Keys
from cgw_hooks.host.etcd.client import Etcd
from tests.lab import domain
from tests.netns.guest import annotated
from tests.registry.cluster import RegistryCluster, registry_cluster
from tests.registry.hook_client import Call, call
from tests.registry.outages import OUTAGES, kill_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.node import Node

_AT_ONCE, _STORMS = 600, 5
_MANY, _COLD_STARTS = 10_000, 3
_OUTAGES, _OUTAGE_SECONDS = 5, 10.0
_FIRST_PORT = 10_000
#: A tmpfs, as /run is.
_RUN = "/dev/shm"  # noqa: S108
_BATCH = 100
ANY = "0.0.0.0"  # noqa: S104  (a listening address of the guests)
_OPERATIONS = ("prepare", "started", "stopped", "release")


def uuid(number: int) -> str:
    """Return the uuid of a guest with this number; no guest of the lab has it."""
    return f"c9100000-0000-4000-8000-{number:012x}"


def definition(made: RegistryCluster, number: int) -> str:
    """Return the definition of a guest with one TCP port."""
    guest = made.guest("web1")
    xml = annotated(guest, f"{_FIRST_PORT + number}:22")
    return xml.replace(domain.guest_uuid(guest.octet), uuid(number)).replace("web1", f"g{number}")


def storm(made: RegistryCluster, etcd: Etcd) -> tuple[float, float]:
    """Start 600 guests at once; seconds until all hooks and until all claims are there."""
    nodes = list(made.nodes.values())
    definitions = [definition(made, number) for number in range(_AT_ONCE)]
    begun = time.monotonic()
    calls = [
        Call(nodes[number % len(nodes)], f"g{number}", "prepare", xml)
        for number, xml in enumerate(definitions)
    ]
    if any(started.finish().exit_code for started in calls):
        raise RuntimeError("a guest was refused")
    answered = time.monotonic() - begun
    prefix = Keys(made.etcd.config().prefix).guests
    while len(etcd.list(prefix).values) < _AT_ONCE:
        time.sleep(0.01)
    claimed = time.monotonic() - begun
    for number, xml in enumerate(definitions):
        call(nodes[number % len(nodes)], f"g{number}", "release", xml)
    while etcd.list(prefix).values:
        time.sleep(0.05)
    return answered, claimed


def agreements(made: RegistryCluster) -> Iterator[tuple[str, list[float]]]:
    """Yield each kind of outage, and the seconds from its mend until all nodes agree.

    Meanwhile one guest stops on the first node, and one starts on the last one.
    """
    leaving, arriving = made.guest("web1"), made.guest("web3")
    for kind, fail in {**OUTAGES, "all members killed": kill_all}.items():
        found = []
        for _ in range(_OUTAGES):
            leaving.start()
            made.until_agreed({2201: "web1", 2203: ""})
            fail(made)
            leaving.stop("shutdown")
            arriving.start()
            time.sleep(_OUTAGE_SECONDS)
            mended = made.mend_etcd()
            found.append(made.until_agreed({2201: "", 2203: "web3"}) - mended)
            made.mend()
            arriving.stop("shutdown")
        yield kind, found


def entries() -> Iterator[Put]:
    """Yield what a node publishes of 10,000 guests with one port each."""
    keys = Keys("/cgw")
    for number in range(_MANY):
        port, target = _FIRST_PORT + number, f"10.5.5.{20 + number % 200}"
        ports = [["tcp", ANY, port, port, 22, target, []]]
        text = json.dumps({"version": 1, "name": f"g{number}", "ports": ports})
        yield Put(keys.guest(uuid(number), "node9"), text)


def fill(etcd: Etcd) -> None:
    """Write 10,000 guests of a node that is not there."""
    puts = list(entries())
    for start in range(0, _MANY, _BATCH):
        etcd.commit(puts[start : start + _BATCH], seconds=60)


def cold_start(made: RegistryCluster, number: int) -> tuple[float, float, float]:
    """Start the agent of a node that has nothing; seconds until all is applied, and its MiB."""
    node = made.nodes[number]
    begun = time.monotonic()
    agent = made.start_agent(number)
    while not is_applied(node):
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    time.sleep(1)  # what the agent has only needed for the change goes back to the kernel
    return seconds, _mebibytes(status, "VmHWM"), agent.resident_megabytes()


def is_applied(node: Node) -> bool:
    """Whether the node publishes the first and the last guest; all come in one transaction."""
    last = _FIRST_PORT + _MANY - 1
    if len(list((node.runtime / "guests").glob("*.json"))) < _MANY:
        return False
    probe = f"inet cgw published4 {{ tcp . {_FIRST_PORT}, tcp . {last} }}"
    found = node.namespace.run(["sh", "-c", f"nft get element {probe} 2>&1 || :"])
    return "Error" not in found.stdout


def _mebibytes(status: str, name: str) -> float:
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def forget(made: RegistryCluster, number: int) -> None:
    """End the agent of a node, and let the node lose all that it knew."""
    made.kill_agent(number)
    node = made.nodes[number]
    node.lose_runtime()
    for file in (node.folder / "state").glob("*"):
        file.unlink()
    node.cgw("node", "up")


def hook_call(node: Node, xml: str, measured: str) -> float:
    """Make all calls of one more guest; return the seconds of one of them."""
    times = {}
    for operation in _OPERATIONS:
        begun = time.perf_counter()
        done = call(node, "g60000", operation, xml)
        times[operation] = time.perf_counter() - begun
        if done.exit_code:
            raise RuntimeError(done.complaint)
    return times[measured]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What the registry of the cluster costs.")
    parser.add_argument("--rounds", type=int, default=25, help="measurements of each hook call")
    rounds = parser.parse_args().rounds
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="cgw-bench-", dir=_RUN))
        )
        made = stack.enter_context(registry_cluster(folder, "bookworm"))
        etcd = Etcd(made.etcd.config())
        stack.callback(etcd.close)
        stack.enter_context(made.nodes[1].namespace.entered())
        made.start_agents()
        agreed = list(agreements(made))
        storms = [storm(made, etcd) for _ in range(_STORMS)]
        for number in made.nodes:
            made.kill_agent(number)
        fill(etcd)
        starts = []
        for _ in range(_COLD_STARTS):
            starts.append(cold_start(made, 1))
            if len(starts) < _COLD_STARTS:
                forget(made, 1)
        alone = made.nodes[2]
        alone.configure(
            alone.config_file.read_text().replace('prefix = "/cgw"', 'prefix = "/none"')
        )
        made.start_agent(2)
        xml = definition(made, 50_000)
        cases = {
            f"{operation}, {beside}": partial(hook_call, node, xml, operation)
            for operation in _OPERATIONS
            for node, beside in ((alone, "alone"), (made.nodes[1], f"beside {_MANY:,}"))
        }
        times = take_turns(cases, rounds, warm_up=2)
        etcd.commit([Delete("/cgw/x")])
    print_ratios(
        "HOOK CALL, 1 TCP PORT, GUESTS OF OTHER NODES",
        times,
        _agreed(agreed),
        _told(storms),
        _cold(starts),
    )
    return 0


def _agreed(found: list[tuple[str, list[float]]]) -> str:
    shown = "; ".join(
        f"{kind} {statistics.median(times):.1f} s ({max(times):.1f})" for kind, times in found
    )
    return f"from the mend until all nodes agree (median of {_OUTAGES}; longest): {shown}"


def _told(storms: list[tuple[float, float]]) -> str:
    answered, claimed = zip(*storms, strict=True)
    return (
        f"{_AT_ONCE} guests at once on three nodes: the last hook has its answer after "
        f"{statistics.median(answered):.2f} s, all claims are in the registry after "
        f"{statistics.median(claimed):.2f} s (medians of {len(storms)}; longest {max(claimed):.2f})"
    )


def _cold(starts: list[tuple[float, float, float]]) -> str:
    seconds, peaks, after = zip(*starts, strict=True)
    return (
        f"cold start with {_MANY:,} guests in the registry: {statistics.median(seconds):.2f} s "
        f"until all are published (median of {len(starts)}; longest {max(seconds):.2f}), at most "
        f"{max(peaks):.0f} MiB resident, {statistics.median(after):.0f} MiB after it"
    )


if __name__ == "__main__":
    sys.exit(main())

"""What bans and limits cost the packets of clients that are not banned, in the same run.

    sudo .venv/bin/python -m benchmarks.bans

The cases take turns in every round, each on wires of its own (see `throughput`). A ratio is the
median of the rounds' ratios to the case without bans and limits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network

from rich.console import Console
from rich.table import Table

from benchmarks.throughput import Case, Wires, ratio
from cgw_hooks.core.bans import NO_END, text_of
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.core.published_port import ANY_ADDRESS, ClientLimits, PublishedPort
from cgw_hooks.core.record import Contents
from cgw_hooks.core.rules import bans, table
from tests.lab import network
from tests.netns.configs import FULL_NAT, NODE

_PORTS = range(20_000, 20_010)
_SERVED = 22
_MANY_ADDRESSES, _MANY_NETWORKS = 100_000, 10_000
_PLAIN = "no bans, no limits"
#: What no client here reaches.
_WIDE = ClientLimits(1_000_000, "second", 10_000)


def rules(addresses: int = 0, networks: int = 0, limits: ClientLimits | None = None) -> str:
    """The node's ruleset with so many bans, of which none is the client's."""
    guest = IPv4Address(network.guest_address(11))
    ports = [
        PublishedPort("tcp", ANY_ADDRESS[4], port, port, _SERVED, guest, limits=limits)
        for port in _PORTS
    ]
    denied = {str(IPv4Address("11.0.0.0") + 7 * n): NO_END for n in range(addresses)}
    denied |= {
        text_of(IPv4Network((int(IPv4Address("20.0.0.0")) + 512 * n, 24))): NO_END
        for n in range(networks)
    }
    text = table.restore(parse_config(FULL_NAT), Contents(ports))
    return text + bans.restore(denied, time.time()) if denied else text


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What bans and limits cost other clients.")
    parser.add_argument("--rounds", type=int, default=45, help="measurements of each case")
    rounds = parser.parse_args().rounds
    texts = {
        _PLAIN: rules(),
        "1 address": rules(1),
        f"{_MANY_ADDRESSES:,} addresses": rules(_MANY_ADDRESSES),
        f"the same, {_MANY_NETWORKS:,} networks": rules(_MANY_ADDRESSES, _MANY_NETWORKS),
        "no bans, both limits": rules(limits=_WIDE),
    }
    with ExitStack() as stack:
        targets = [(NODE[4], port) for port in _PORTS]
        cases = {
            name: Case(Wires(stack, number), text, targets)
            for number, (name, text) in enumerate(texts.items())
        }
        bulk: dict[str, list[float]] = {name: [] for name in cases}
        connections: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(rounds + 2):
            for name, case in cases.items():
                both = case.gigabits(), case.connections()
                if number > 1:  # the first two warm the caches
                    bulk[name].append(both[0])
                    connections[name].append(both[1])
    _print(bulk, connections, rounds)
    return 0


def _print(bulk: dict[str, list[float]], connections: dict[str, list[float]], rounds: int) -> None:
    shown = Table(box=None, pad_edge=False)
    shown.add_column("CASE")
    for heading in ("Gbit/s", "RATIO", "CONNECTIONS/s", "RATIO"):
        shown.add_column(heading, justify="right")
    for name in bulk:
        cells = [name]
        for found, form in ((bulk, "{:.1f}"), (connections, "{:,.0f}")):
            cells.append(form.format(statistics.median(found[name])))
            cells.append(f"{ratio(found, name, _PLAIN):.2f}")
        shown.add_row(*cells)
    console = Console(width=100, highlight=False)
    console.print(shown)
    console.print(f"{rounds} rounds; ratios to the first case in the same round.")


if __name__ == "__main__":
    sys.exit(main())

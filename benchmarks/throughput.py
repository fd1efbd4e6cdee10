"""What FULL-NAT costs the packets, against plain routing on the same path, in the same run.

    sudo make bench

    client --- xenbr0 [node] guestbr0 --- guest

Every case has a client, a node and a guest of its own (network namespaces); the cases
take turns in every round, so that a busy machine slows all of them alike. A ratio is
the median of the rounds' ratios. Connections go to all published ports in random
order: where each has a rule of its own, a connection passes half of them on average.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import signal
import socket
import statistics
import struct
import sys
import time
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.core.published_port import ANY_ADDRESS, PublishedPort
from cgw_hooks.core.record import Contents
from cgw_hooks.core.rules import table
from tests.lab import network
from tests.lab.namespace import Namespace, namespace, veth
from tests.netns.configs import FULL_NAT, NODE, NODE_AMONG_GUESTS

if TYPE_CHECKING:
    from collections.abc import Iterable

_FEW, _SOME, _MANY = 10, 1_000, 10_000
_FIRST_PORT = 20_000
_GUEST, _SERVED = network.guest_address(11), 22
_SECONDS = 0.12
_CHUNK = 1 << 20
_PLAIN, _LINEAR = "plain routing", f"{_MANY:,} ports, a rule to each"
#: Closing sends a reset: otherwise ports stay in TIME-WAIT, and the loop runs out of ports.
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_QUIET = {
    # Closed connections must be forgotten before their source ports are used again.
    "net/netfilter/nf_conntrack_tcp_timeout_close": "1",
    # If the module is loaded: make the namespace like a host that did not load it.
    "net/bridge/bridge-nf-call-iptables": "0",
}


class Wires:
    """A client, a node and a guest that reads everything it is sent."""

    def __init__(self, stack: ExitStack, number: int) -> None:
        self.client, self.node, guest = (
            stack.enter_context(namespace(f"{who}{number}")) for who in ("client", "node", "guest")
        )
        network.wire_client(self.client)
        network.wire_node(self.node, self.client, network.NodeAddresses(1))
        veth(self.node, "guest11", guest, "eth0")
        self.node.ip(f"link set guest11 master {network.GUEST_BRIDGE}")
        guest.ip(
            f"address add {_GUEST}/24 dev eth0\nroute add default via {network.GATEWAY_ADDRESS}\n"
        )
        self.client.ip(f"route add {network.GUEST_SUBNET} via {NODE[4]}")
        listener = guest.call(lambda: socket.create_server((_GUEST, _SERVED)))
        taker = multiprocessing.get_context("fork").Process(target=_take, args=(listener,))
        taker.start()
        listener.close()
        stack.callback(taker.join)
        stack.callback(taker.kill)


class Case:
    """A ruleset on wires of its own, and what the client measures through it."""

    def __init__(self, wires: Wires, rules: str, targets: Iterable[tuple[str, int]]) -> None:
        if rules:
            wires.node.run(["nft", "-f", "-"], input=rules)
        wires.node.sysctl({name: value for name, value in _QUIET.items() if _exists(wires, name)})
        self._client: Namespace = wires.client
        shuffled = list(targets)
        random.shuffle(shuffled)
        self._targets = itertools.cycle(shuffled)

    def gigabits(self) -> float:
        """Send for a while; Gbit/s until the guest has taken all of it."""
        return self._client.call(self._send)

    def connections(self) -> float:
        """Connect, close, wait for the guest to close, again and again; how many a second."""
        return self._client.call(self._connect)

    def _send(self) -> float:
        chunk = os.memfd_create("chunk")
        os.truncate(chunk, _CHUNK)
        started, sent = time.perf_counter(), 0
        with socket.create_connection(next(self._targets)) as connection:
            while time.perf_counter() < started + _SECONDS:
                sent += os.sendfile(connection.fileno(), chunk, 0, _CHUNK)
            _finish(connection)
        os.close(chunk)
        return sent * 8 / 1e9 / (time.perf_counter() - started)

    def _connect(self) -> float:
        started, made = time.perf_counter(), 0
        while time.perf_counter() < started + _SECONDS:
            with socket.create_connection(next(self._targets)) as connection:
                _finish(connection)
            made += 1
        return made / (time.perf_counter() - started)


def _finish(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    with suppress(ConnectionResetError):
        connection.recv(1)


def _take(listener: socket.socket) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: for the one who measures
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)  # is inherited
    buffer = bytearray(_CHUNK)
    while True:
        with listener.accept()[0] as connection:
            while connection.recv_into(buffer):
                pass


def _exists(wires: Wires, sysctl: str) -> bool:
    return wires.node.call(lambda: Path("/proc/sys", sysctl).exists())


def by_map(count: int) -> str:
    """The node's ruleset as cgw makes it, with so many published ports."""
    ports = [
        PublishedPort("tcp", ANY_ADDRESS[4], port, port, _SERVED, IPv4Address(_GUEST))
        for port in _listened(count)
    ]
    return table.restore(parse_config(FULL_NAT), Contents(ports))


def by_rules(count: int) -> str:
    """The same with one rule per port, as people would type it."""
    rules = "\n".join(
        f'iifname "{network.UPLINK_BRIDGE}" tcp dport {port} dnat to {_GUEST}:{_SERVED}'
        for port in _listened(count)
    )
    guests = f'ip daddr {network.GUEST_SUBNET} oifname "{network.GUEST_BRIDGE}"'
    return f"""table ip linear {{
        chain prerouting {{ type nat hook prerouting priority dstnat;
            {rules}
        }}
        chain postrouting {{ type nat hook postrouting priority srcnat;
            {guests} snat to {NODE_AMONG_GUESTS[4]}
        }}
    }}
    """


def _listened(count: int) -> range:
    return range(_FIRST_PORT, _FIRST_PORT + count)


def cases(stack: ExitStack) -> dict[str, Case]:
    """Every case by its name, plain routing first."""
    counts = {f"{count:,} ports": count for count in (_FEW, _SOME, _MANY)}
    rules = {name: by_map(count) for name, count in counts.items()}
    rules[_LINEAR], counts[_LINEAR] = by_rules(_MANY), _MANY
    made = {_PLAIN: Case(Wires(stack, 0), "", [(_GUEST, _SERVED)])}
    for number, name in enumerate(rules, start=1):
        targets = ((NODE[4], port) for port in _listened(counts[name]))
        made[name] = Case(Wires(stack, number), rules[name], targets)
    return made


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What FULL-NAT costs the packets.")
    parser.add_argument("--rounds", type=int, default=45, help="measurements of each case")
    rounds = parser.parse_args().rounds
    with ExitStack() as stack:
        measured = cases(stack)
        bulk: dict[str, list[float]] = {name: [] for name in measured}
        connections: dict[str, list[float]] = {name: [] for name in measured}
        for number in range(rounds + 2):
            if sys.stderr.isatty():
                sys.stderr.write(f"\rround {number} of {rounds + 2} ")
            for name, case in measured.items():
                both = case.gigabits(), case.connections()
                if number > 1:  # the first two warm the caches
                    bulk[name].append(both[0])
                    connections[name].append(both[1])
    sys.stderr.write("\r" if sys.stderr.isatty() else "")
    _print(bulk, connections, rounds)
    return 0


def _ratio(times: dict[str, list[float]], name: str, to: str) -> float:
    return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))


def _print(bulk: dict[str, list[float]], connections: dict[str, list[float]], rounds: int) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("CASE")
    for heading in ("Gbit/s", "RATIO", "CONNECTIONS/s", "RATIO"):
        table.add_column(heading, justify="right")
    for name, speeds in bulk.items():
        table.add_row(
            name,
            f"{statistics.median(speeds):.1f}",
            f"{_ratio(bulk, name, _PLAIN):.2f}",
            f"{statistics.median(connections[name]):,.0f}",
            f"{_ratio(connections, name, _PLAIN):.2f}",
        )
    console = Console(width=100, highlight=False)
    console.print(table)
    gain = _ratio(connections, f"{_MANY:,} ports", _LINEAR)
    console.print(f"connections at {_MANY:,} ports, our map against a rule to each: {gain:.1f}")
    console.print(f"{rounds} rounds; ratios to plain routing (no rules) in the same round.")


if __name__ == "__main__":
    sys.exit(main())

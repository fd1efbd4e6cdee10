"""What bans and limits cost the packets of clients that are not banned, in the same run.

    sudo .venv/bin/python -m benchmarks.bans

    client --- xenbr0 [node] guestbr0 --- guest

Each case has hosts of its own (network namespaces), and the cases take turns. The client sends
bursts of datagrams to a published port: in a flow that the node knows, or each from a new source
port. A virtual wire delivers a packet before the send ends, so the time of a burst is that of the
packets' whole way to the guest. On a busy machine most bursts are interrupted, so the fastest
tenth of each case counts.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import time
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from cgw_hooks.core.bans import NO_END, text_of
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.core.published_port import ANY_ADDRESS, ClientLimits, PublishedPort
from cgw_hooks.core.record import Contents
from cgw_hooks.core.rules import bans, table
from tests.lab import network
from tests.lab.namespace import namespace, veth
from tests.netns.configs import FULL_NAT, NODE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LISTEN, _SERVED = 20_000, 53
_MANY_ADDRESSES, _MANY_NETWORKS = 100_000, 10_000
_PLAIN = "no bans, no limits"
#: What no client here reaches.
_WIDE = ClientLimits(1_000_000, "second", 60_000)
_BURST, _NEW_FLOWS = 256, 16


class Case:
    """A ruleset on wires of its own, and a client that sends through it."""

    def __init__(self, stack: ExitStack, number: int, rules: str) -> None:
        client, node, guest = (
            stack.enter_context(namespace(f"{who}{number}")) for who in ("client", "node", "guest")
        )
        network.wire_client(client)
        network.wire_node(node, client, network.NodeAddresses(1))
        veth(node, "guest11", guest, "eth0")
        node.ip(f"link set guest11 master {network.GUEST_BRIDGE}")
        address = network.guest_address(11)
        guest.ip(
            f"address add {address}/24 dev eth0\nroute add default via {network.GATEWAY_ADDRESS}\n"
        )
        node.run(["nft", "-f", "-"], input=rules)
        # It never reads: what does not fit is dropped without a word.
        listener = guest.call(_datagram_socket)
        listener.bind((address, _SERVED))
        stack.callback(listener.close)
        self._client = client
        self._known = client.call(_datagram_socket)
        self._known.connect((NODE[4], _LISTEN))
        stack.callback(self._known.close)

    def known_flow(self) -> float:
        """Send a burst in one flow; return seconds per packet."""
        send = self._known.send
        started = time.perf_counter()
        for _ in range(_BURST):
            send(b"x")
        return (time.perf_counter() - started) / _BURST

    def new_flows(self) -> float:
        """Send one packet from each of some new ports; return seconds per packet."""
        fresh = self._client.call(lambda: [_datagram_socket() for _ in range(_NEW_FLOWS)])
        target = (NODE[4], _LISTEN)
        started = time.perf_counter()
        for each in fresh:
            each.sendto(b"x", target)
        seconds = time.perf_counter() - started
        for each in fresh:
            each.close()
        return seconds / _NEW_FLOWS


def _datagram_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def rules(addresses: int = 0, networks: int = 0, limits: ClientLimits | None = None) -> str:
    """Return the node's ruleset with so many bans, of which none is the client's."""
    guest = IPv4Address(network.guest_address(11))
    port = PublishedPort("udp", ANY_ADDRESS[4], _LISTEN, _LISTEN, _SERVED, guest, limits=limits)
    denied = {str(IPv4Address("11.0.0.0") + 7 * n): NO_END for n in range(addresses)}
    denied |= {
        text_of(IPv4Network((int(IPv4Address("20.0.0.0")) + 512 * n, 24))): NO_END
        for n in range(networks)
    }
    text = table.restore(parse_config(FULL_NAT), Contents([port]))
    return text + bans.restore(denied, time.time()) if denied else text


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What bans and limits cost other clients.")
    parser.add_argument("--rounds", type=int, default=1000, help="bursts of each case")
    rounds = parser.parse_args().rounds
    texts = {
        _PLAIN: rules(),
        "1 banned address": rules(1),
        f"{_MANY_ADDRESSES:,} banned addresses": rules(_MANY_ADDRESSES),
        f"the same, and {_MANY_NETWORKS:,} networks": rules(_MANY_ADDRESSES, _MANY_NETWORKS),
        "both limits": rules(limits=_WIDE),
    }
    with ExitStack() as stack:
        cases = {
            name: Case(stack, number, text) for number, (name, text) in enumerate(texts.items())
        }
        known = _take_turns({name: case.known_flow for name, case in cases.items()}, rounds)
        new = _take_turns({name: case.new_flows for name, case in cases.items()}, rounds)
    _print(known, new, rounds)
    return 0


def _take_turns(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the time of the fastest tenth of each case's bursts, in seconds per packet."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, measure in cases.items():
            times[name].append(measure())
    return {name: statistics.quantiles(found, n=10)[0] for name, found in times.items()}


def _print(known: dict[str, float], new: dict[str, float], rounds: int) -> None:
    shown = Table(box=None, pad_edge=False)
    shown.add_column("CASE")
    for heading in ("KNOWN FLOW us", "RATIO", "NEW FLOW us", "RATIO"):
        shown.add_column(heading, justify="right")
    for name in known:
        cells = [name]
        for found in (known, new):
            cells += [f"{found[name] * 1e6:.2f}", f"{found[name] / found[_PLAIN]:.2f}"]
        shown.add_row(*cells)
    console = Console(width=100, highlight=False)
    console.print(shown)
    console.print(
        f"{rounds} bursts each; microseconds per packet, the fastest tenth of the bursts."
    )


if __name__ == "__main__":
    sys.exit(main())

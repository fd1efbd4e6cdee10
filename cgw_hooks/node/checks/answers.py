"""Checks whether the guests accept connections."""

from __future__ import annotations

from shlex import quote

from cgw_hooks.core.finding import Finding, fail, unknown
from cgw_hooks.core.problem import Problem
from cgw_hooks.host import tcp_probe
from cgw_hooks.node.checks.firewalls import keeps_node_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.node.checks.facts import Facts, GuestPort


def service(facts: Facts) -> Iterator[Finding]:
    """Whether the guest accepts connections, as far as this can be found out."""
    for way in facts.ways:
        if way.port.protocol != "tcp":
            protocol = way.port.protocol.upper()
            message = f"{way.port.listen}: whether a {protocol} service answers cannot be found out"
            yield unknown(Problem("no-service", way.record.guest.title, message))
            continue
        if not facts.answering.get((way.device, way.target), True):
            continue  # another check has found this
        found = facts.connections.get((way.target, way.port.to))
        if found is None:
            message = f"{way.port.listen}: too many guests to try a connection to each"
            cure = f"run: cgw doctor {quote(way.record.guest.name)}"
            yield unknown(Problem("no-service", way.record.guest.title, message, cure))
        elif found == tcp_probe.SILENT and keeps_node_out(facts, facts.packets_of(way)):
            message = f"{way.port.listen}: rules of this host may drop a connection of its own"
            yield unknown(Problem("no-service", way.record.guest.title, message))
        elif found != tcp_probe.OPEN:
            yield fail(_no_service(way, found))


def _no_service(way: GuestPort, found: str) -> Problem:
    to = f"{way.target} port {way.port.to}"
    if found == tcp_probe.REFUSED:
        message = f"the guest refuses a connection from this node to {to}"
        cure = f"start its service, on that address: in the guest, ss -ltn shows port {way.port.to}"
    else:
        message = f"the guest does not answer a connection from this node to {to}"
        cure = f"see in the guest: its firewall must accept TCP port {way.port.to}, and it must run"
    return Problem("no-service", way.record.guest.title, f"{way.port.listen}: {message}", cure)

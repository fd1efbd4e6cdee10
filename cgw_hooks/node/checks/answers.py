"""Checks that ask the guests: who has their addresses, and whether they accept connections."""

from __future__ import annotations

from cgw_hooks.core.finding import Finding, fail, unknown
from cgw_hooks.core.problem import Problem
from cgw_hooks.host import tcp_probe
from cgw_hooks.node.checks.firewalls import keeps_node_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.node.checks.facts import Facts, GuestPort

_ADDRESS = "see in the guest: ip address; and here, whether its device is a port: bridge link"
_TWICE = "take the address from the host that should not have it; find its MAC: bridge fdb show"


def route(facts: Facts) -> Iterator[Finding]:
    """Whether the kernel's route to each guest is a direct one."""
    for way in facts.ways:
        found = facts.route_to(way.target)
        if found and found.kind == "unicast" and not found.gateway:
            continue
        how = (
            "no route leads to" if found is None else f'there is a route of kind "{found.kind}" to'
        )
        if found and found.gateway:
            how = f"the route leads through the router {found.gateway} to"
        bridge = facts.guest_device(way.target)
        look = f"see: ip route get {way.target}" if not bridge else "run: cgw node up"
        yield fail(Problem("route", way.record.guest.title, f"{how} {way.target}", look))


def neighbours(facts: Facts) -> Iterator[Finding]:
    """Whether exactly one host answers for each guest's address."""
    for (device, address), macs in facts.answering.items():
        way = next(way for way in facts.ways if (way.device, way.target) == (device, address))
        who = way.record.guest.title
        if not macs:
            message = f"nobody on {device} answers for its address {address}"
            yield fail(Problem("no-neighbour", who, message, _ADDRESS))
        elif len(macs) > 1:
            message = f"several hosts answer for {address}: {', '.join(sorted(macs))}"
            yield fail(Problem("address-twice", who, message, _TWICE))


def service(facts: Facts) -> Iterator[Finding]:
    """Whether the guest accepts connections, as far as this can be found out."""
    for way in facts.ways:
        if way.port.protocol != "tcp":
            message = f"{way.port.listen}: a {way.port.protocol.upper()} service need not answer"
            yield unknown(Problem("no-service", way.record.guest.title, message))
            continue
        found = facts.connections.get((way.target, way.port.to))
        if found is None:
            message = f"{way.port.listen}: the time was too short to try a connection"
            yield unknown(Problem("no-service", way.record.guest.title, message))
        elif found == tcp_probe.SILENT and keeps_node_out(facts, facts.packets_of(way)):
            message = f"{way.port.listen}: rules of this host may drop a connection of its own"
            yield unknown(Problem("no-service", way.record.guest.title, message))
        elif found != tcp_probe.OPEN and facts.answering.get((way.device, way.target), True):
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

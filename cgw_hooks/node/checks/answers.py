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

_MOST_NAMED = 3


def service(facts: Facts) -> Iterator[Finding]:
    """Whether the guest accepts connections, as far as this can be found out."""
    #: Guest -> reason -> what cannot be found out.
    untold: dict[str, dict[tuple[str, str], list[str]]] = {}
    for way in facts.ways:
        if not facts.answering.get((way.device, way.target), True):
            continue  # another check has found this
        found = facts.connections.get((way.target, way.port.to))
        reason = _why_unknown(facts, way, found)
        if reason:
            of_guest = untold.setdefault(way.record.guest.title, {})
            of_guest.setdefault(reason, []).append(way.port.listen)
        elif found and found != tcp_probe.OPEN:
            yield fail(_no_service(way, found))
    for who, reasons in untold.items():
        for (why, cure), listens in reasons.items():
            shown = ", ".join(listens[:_MOST_NAMED])
            more = f" and {len(listens) - _MOST_NAMED} more" if len(listens) > _MOST_NAMED else ""
            yield unknown(Problem("no-service", who, f"{shown}{more}: {why}", cure))


def _why_unknown(facts: Facts, way: GuestPort, found: str | None) -> tuple[str, str] | None:
    """Return why it cannot be found out whether a port's service answers, and the cure."""
    if way.port.protocol != "tcp":
        return "only of TCP can be found out whether the service answers", ""
    if found is None:
        cure = f"run: cgw doctor {quote(way.record.guest.name)}"
        return "there are too many guests to try a connection to each", cure
    if found == tcp_probe.SILENT and keeps_node_out(facts, facts.packets_of(way)):
        return "rules of this host may drop a connection of its own to the guest", ""
    return None


def _no_service(way: GuestPort, found: str) -> Problem:
    to = f"{way.target} port {way.port.to}"
    if found == tcp_probe.REFUSED:
        message = f"the guest refuses a connection from this node to {to}"
        cure = f"start its service, on that address: in the guest, ss -ltn shows port {way.port.to}"
    else:
        message = f"the guest does not answer a connection from this node to {to}"
        cure = f"see in the guest: its firewall must accept TCP port {way.port.to}, and it must run"
    return Problem("no-service", way.record.guest.title, f"{way.port.listen}: {message}", cure)

"""``cgw status``: the published ports, their guests, states and times, and the problems."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cgw_hooks.node.figures import figures_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgw_hooks.core.diagnosis import Diagnosis, Row
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.node.figures import Figures


#: The version of the format: it changes if a member is removed or gets another meaning.
VERSION = 1


def as_json(
    found: Diagnosis, node: str, figures: Mapping[PublishedPort, Figures] | None = None
) -> dict[str, Any]:
    """Return the whole diagnosis for ``--json``, as schemas/status.json describes it."""
    return {
        "version": VERSION,
        "node": node or None,
        "published": [_row(row, figures) for row in found.rows],
        "problems": [problem.as_json() for problem in found.problems],
    }


def _row(row: Row, figures: Mapping[PublishedPort, Figures] | None) -> dict[str, Any]:
    guest, port = row.record.guest, row.port
    seconds = row.record.since
    shown: dict[str, Any] = {
        "guest": guest.name,
        "driver": guest.key.driver,
        "id": guest.key.id,
        "uuid": guest.uuid or None,
        "state": row.state,
        "since": _time(seconds) if seconds else None,
        "problem": row.problem.as_json() if row.problem else None,
    }
    if port:
        shown |= port_members(guest, port)
    if port and figures is not None:
        shown["figures"] = _figures(figures_of(row, figures))
    return shown


def _figures(of_port: Figures | None) -> dict[str, Any] | None:
    if of_port is None:
        return None
    now, total = of_port.open_traffic, of_port.traffic
    return {
        "connections": of_port.connections,
        "open": of_port.open,
        "open_bytes_received": now.received if now else None,
        "open_bytes_sent": now.sent if now else None,
        "bytes_received": total.received if total else None,
        "bytes_sent": total.sent if total else None,
    }


def port_members(guest: Guest, port: PublishedPort) -> dict[str, Any]:
    """Return the members of JSON that describe one port of a guest."""
    limits = port.limits
    any_address = port.listen_address.is_unspecified
    until = dict(guest.limits).get(port.claim)
    return {
        "protocol": port.protocol,
        "family": port.family,
        "listen_address": None if any_address else str(port.listen_address),
        "listen_ports": [port.start, port.end],
        "target_address": str(port.target_address) if port.target_address else None,
        "target_ports": [port.to, port.to + port.end - port.start],
        "sources": [str(source) for source in port.sources],
        **({} if until is None else {"until": _time(until)}),
        **({"limit": limits.limit} if limits and limits.rate else {}),
        **({"max_connections": limits.connections} if limits and limits.connections else {}),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

"""What the published ports of this node do: connections since they were published, and now.

Only the connections that this node has translated are known: those whose clients came in here.
"""

from __future__ import annotations

from cgw_hooks.core.connection import Traffic
from cgw_hooks.core.flow import PortFinder, goes_to
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.record import overridden
from cgw_hooks.core.rules import counted
from cgw_hooks.core.rules.elements import map_names
from cgw_hooks.core.rules.names import TABLE
from cgw_hooks.host.map_counters import read_counters
from cgw_hooks.host.tracked_connections import connections_to, is_counting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cgw_hooks.core.connection import Connection
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.diagnosis import Row


class Figures(NamedTuple):
    """The figures of one published port."""

    #: Connections since the port was published; None if the kernel has no counter.
    connections: int | None
    #: Connections that are open now.
    open: int
    #: The bytes of the open connections; None if the kernel does not count them.
    traffic: Traffic | None


class GuestConnection(NamedTuple):
    """A connection, the guest and its published port."""

    guest: Guest
    port: PublishedPort
    connection: Connection


def visible_ports(records: Collection[Record]) -> dict[PublishedPort, Guest]:
    """Return the ports that have elements in the ruleset, and their guests."""
    hidden = overridden(records)
    return {p: r.guest for r in records if r.key not in hidden for p in r.translated}


def counted_connections(ports: Iterable[PublishedPort]) -> dict[PublishedPort, int]:
    """Return the connections to each port since it was published. Raises ``RulesetError``.

    A port without a counter in the kernel is left out.
    """
    counts = read_counters(TABLE.partition(" ")[2], map_names())
    found = {port: counted.connections(port, counts) for port in ports}
    return {port: count for port, count in found.items() if count is not None}


def open_connections(guests: dict[PublishedPort, Guest]) -> list[GuestConnection]:
    """Return the connections to these ports that are open now. Raises ``RulesetError``."""
    finder = PortFinder(guests)
    found = []
    for connection in connections_to(guests):
        flow = connection.flow
        port = finder.port_of(flow)
        if port and connection.is_open and goes_to(flow, port):
            found.append(GuestConnection(guests[port], port, connection))
    return found


def figures(guests: dict[PublishedPort, Guest]) -> dict[PublishedPort, Figures]:
    """Return the figures of these ports. Raises ``RulesetError``."""
    counts = counted_connections(guests)
    now: dict[PublishedPort, list[Connection]] = {}
    for each in open_connections(guests):
        now.setdefault(each.port, []).append(each.connection)
    return {
        port: Figures(counts.get(port), len(now.get(port, ())), _sum(now.get(port, ())))
        for port in guests
    }


def _sum(connections: Collection[Connection]) -> Traffic | None:
    """Return the bytes of all connections; None if they are not counted for any one."""
    parts = [each.traffic for each in connections]
    known = [part for part in parts if part]
    if len(known) < len(parts) or not (parts or is_counting()):
        return None
    return Traffic(sum(part.received for part in known), sum(part.sent for part in known))


def figures_of(row: Row, found: Mapping[PublishedPort, Figures]) -> Figures | None:
    """Return the figures of a row's port; None if the ruleset does not have it for this guest."""
    is_there = row.port in row.record.translated and row.state != "overridden"
    return found.get(row.port) if row.port and is_there else None

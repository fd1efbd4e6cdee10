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
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from cgw_hooks.core.connection import Connection
    from cgw_hooks.core.diagnosis import Row
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.record import Record


class Figures(NamedTuple):
    """The figures of one published port."""

    #: Connections since the port was published; None if the kernel has no counter.
    connections: int | None
    #: Connections that are open now.
    open: int
    #: The bytes of the open connections; None if the kernel does not count them.
    open_traffic: Traffic | None
    #: The bytes since the port was published, or since the agent has counted them; None if it
    #: does not.
    traffic: Traffic | None


class GuestConnection(NamedTuple):
    """A connection, the guest and its published port."""

    guest: Guest
    port: PublishedPort
    connection: Connection


def visible_ports(records: Collection[Record]) -> dict[PublishedPort, Record]:
    """Return the ports that have elements in the ruleset, and their guests' records."""
    hidden = overridden(records)
    return {port: r for r in records if r.key not in hidden for port in r.translated}


def publication(port: PublishedPort, record: Record) -> str:
    """Return a name for the time from a guest's start to its stop, and a port of it."""
    return f"{record.key} {record.since} {port}"


def counted_connections(ports: Iterable[PublishedPort]) -> dict[PublishedPort, int]:
    """Return the connections to each port since it was published. Raises ``RulesetError``.

    A port without a counter in the kernel is left out.
    """
    counts = read_counters(TABLE.partition(" ")[2], map_names())
    found = {port: counted.connections(port, counts) for port in ports}
    return {port: count for port, count in found.items() if count is not None}


def open_connections(ports: dict[PublishedPort, Record]) -> list[GuestConnection]:
    """Return the connections to these ports that are open now. Raises ``RulesetError``."""
    return [each for each in _tracked_connections(ports) if each.connection.is_open]


def _tracked_connections(ports: dict[PublishedPort, Record]) -> Iterator[GuestConnection]:
    """Yield all connections that the kernel knows, also those that have just ended."""
    finder = PortFinder(ports)
    for connection in connections_to(ports):
        port = port_of(connection, finder)
        if port:
            yield GuestConnection(ports[port].guest, port, connection)


def port_of(connection: Connection, finder: PortFinder) -> PublishedPort | None:
    """Return the published port that has translated a connection; None if none of them has."""
    flow = connection.flow
    port = finder.port_of(flow)
    return port if port and goes_to(flow, port) else None


def figures(
    ports: dict[PublishedPort, Record], ended: Mapping[str, Traffic] | None
) -> dict[PublishedPort, Figures]:
    """Return the figures of these ports. Raises ``RulesetError``.

    ``ended`` are the bytes of connections that the kernel has forgotten, by publication; None:
    nobody has counted them.
    """
    counts = counted_connections(ports)
    tracked: dict[PublishedPort, list[Connection]] = {}
    for each in _tracked_connections(ports):
        tracked.setdefault(each.port, []).append(each.connection)
    found = {}
    for port, record in ports.items():
        all_known = tracked.get(port, [])
        are_open = [connection for connection in all_known if connection.is_open]
        total = None
        if ended is not None and (still := _sum(all_known)):
            before = ended.get(publication(port, record), Traffic(0, 0))
            total = Traffic(before.received + still.received, before.sent + still.sent)
        found[port] = Figures(counts.get(port), len(are_open), _sum(are_open), total)
    return found


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

"""What a monitoring system wants to know of this node, as numbers."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.host.state.byte_totals import ByteTotals
from cgw_hooks.node.diagnosis import diagnose
from cgw_hooks.node.figures import figures, visible_ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.figures import Figures
    from cgw_hooks.node.publisher import Publisher

    Item = TypeVar("Item")


class Measurements(NamedTuple):
    """The numbers of this node at one moment."""

    #: State -> the number of published ports.
    ports: dict[str, int]
    #: Driver -> the number of guests with published ports.
    guests: dict[str, int]
    #: Code -> the number of problems.
    problems: dict[str, int]
    #: Each port that is in the ruleset.
    figures: list[tuple[Record, PublishedPort, Figures]]


def measure(publisher: Publisher, *, per_port: bool) -> Measurements:
    """Measure this node, without asking libvirt. Raises ``CgwError``.

    A connection to libvirt would keep its daemon from ending, and start it again.
    """
    found = diagnose(publisher, asks=False)
    records = {row.record.key: row.record for row in found.rows}
    problems = [*(row.problem for row in found.rows if row.problem), *found.problems]
    ports = visible_ports(records.values()) if per_port else {}
    ended = ByteTotals(publisher.state.directory).read() if per_port else None
    return Measurements(
        _count(row.state for row in found.rows if row.port),
        _count(key.driver for key, record in records.items() if record.guest.ports),
        _count(problem.code for problem in dict.fromkeys(problems)),
        [(ports[port], port, each) for port, each in figures(ports, ended).items()],
    )


def _count(items: Iterable[Item]) -> dict[Item, int]:
    counts: dict[Item, int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return counts

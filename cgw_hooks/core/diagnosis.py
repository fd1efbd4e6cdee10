"""What a look at the node has found: each published port, and what is wrong.

`cgw status` and `cgw doctor`, their JSON and the metrics are views of this.
"""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.problem import Problem
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.record import Record


class Row(NamedTuple):
    """One published port of one guest, and whether it works at this moment."""

    record: Record
    port: PublishedPort | None
    #: "published" only if a client would find the port open.
    state: str
    problem: Problem | None = None


class Diagnosis(NamedTuple):
    """All rows, and the problems of the node itself."""

    rows: list[Row]
    problems: list[Problem]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(row.problem for row in self.rows)

"""Logs what a sync changed to syslog."""

from __future__ import annotations

from cgw_hooks.errors import quoted
from cgw_hooks.host import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.problem import Problem
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.reconcile import Report


class SyncLog:
    """The log of one process. A problem that stays is logged once."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._said: set[Problem] = set()

    def write(self, report: Report) -> None:
        """Log each change of a sync and each new problem, one line each."""
        for record in report.published:
            self.published(record)
        for name, ports in report.ended:
            shown = "; ".join(map(str, ports))
            log.notice(f"{self._who}: guest {quoted(name)}: withdrawn {shown}")
        for what in report.repaired:
            log.notice(f"{self._who}: repaired {what}")
        for problem in report.problems:
            if problem not in self._said:
                self.problem(problem)
        self._said = set(report.problems)

    def published(self, record: Record) -> None:
        """Log which ports of a guest are published now, and which are withheld."""
        shown = "; ".join(map(str, record.translated)) or "nothing, since it has no address yet"
        log.notice(f"{self._who}: guest {quoted(record.guest.name)}: published {shown}")
        if record.problem:
            self.problem(record.problem)

    def withdrawn(self, record: Record) -> None:
        """Log that a guest is no longer published."""
        shown = "; ".join(map(str, record.translated))
        log.notice(f"{self._who}: guest {quoted(record.guest.name)}: withdrawn {shown}")

    def problem(self, problem: Problem) -> None:
        """Log a problem."""
        log.error(f"{self._who}: {problem}")

"""Logs what a sync changed to syslog."""

from __future__ import annotations

from cgw_hooks.errors import quoted
from cgw_hooks.host import log
from cgw_hooks.node.hook_answer import who

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.problem import Problem
    from cgw_hooks.core.published_port import PublishedPort
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
            self._withdrawn(name, ports, {"guest": name})
        for what in report.repaired:
            log.notice(f"{self._who}: repaired {what}", event="repaired", by=self._who)
        for problem in report.problems:
            if problem not in self._said:
                self.problem(problem)
        self._said = set(report.problems)

    def published(self, record: Record) -> None:
        """Log which ports of a guest are published now, and which are withheld."""
        ports = "; ".join(map(str, record.translated))
        shown = ports or "nothing, since it has no address yet"
        message = f"{self._who}: guest {quoted(record.guest.name)}: published {shown}"
        event = "published" if ports else "no-address"
        log.notice(message, event=event, by=self._who, ports=ports, **who(record.guest))
        if record.problem:
            self.problem(record.problem, record.guest)

    def withdrawn(self, record: Record) -> None:
        """Log that a guest is no longer published."""
        self._withdrawn(record.guest.name, record.translated, who(record.guest))

    def _withdrawn(
        self, name: str, ports: Iterable[PublishedPort], of_guest: dict[str, str]
    ) -> None:
        shown = "; ".join(map(str, ports))
        message = f"{self._who}: guest {quoted(name)}: withdrawn {shown}"
        log.notice(message, event="withdrawn", by=self._who, ports=shown, **of_guest)

    def problem(self, problem: Problem, guest: Guest | None = None) -> None:
        """Log a problem, of a guest if it is known."""
        of_guest = who(guest) if guest else {}
        message = f"{self._who}: {problem}"
        log.error(message, event="problem", by=self._who, code=problem.code, **of_guest)

"""Counts what the agent does. This costs next to nothing, so it is always on."""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TYPE_CHECKING

from cgw_hooks.core.operations import ACTIONS
from cgw_hooks.node.sync_log import SyncLog

if TYPE_CHECKING:
    from cgw_hooks.node.reconcile import Report

#: Upper limits in seconds.
LIMITS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
#: libvirt's operations that do something, and those of vifs of xl.
_KNOWN = frozenset({*ACTIONS, "online", "offline"})
_OTHER = "other"


class Durations:
    """How long the calls of one operation took."""

    def __init__(self) -> None:
        #: Index: that of the limit which the duration does not exceed; the last one: none.
        self.counts = [0] * (len(LIMITS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Add one call."""
        self.counts[bisect_left(LIMITS, seconds)] += 1
        self.seconds += seconds


class Tally:
    """The numbers since the agent has started. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: By operation, and who has served the call: "agent", or "call" for the hook itself.
        self._calls: dict[tuple[str, str], Durations] = {}
        self.abandoned = 0
        self.reconciliations = 0
        self.repairs = 0

    def served(self, operation: str, seconds: float, by: str = "agent") -> None:
        """Note a hook call that was carried out."""
        word = operation if operation in _KNOWN else _OTHER
        with self._lock:
            self._calls.setdefault((word, by), Durations()).add(seconds)

    def gave_up(self) -> None:
        """Note a hook call whose client has given it up, and carries it out itself."""
        with self._lock:
            self.abandoned += 1

    def reconciled(self, report: Report) -> None:
        """Note that records and ruleset were compared, and what was repaired."""
        with self._lock:
            self.reconciliations += 1
            self.repairs += len(report.repaired)

    def calls(self) -> dict[tuple[str, str], tuple[list[int], float]]:
        """Return a copy: operation and who served it -> calls within each limit, sum of seconds."""
        with self._lock:
            return {key: ([*d.counts], d.seconds) for key, d in self._calls.items()}


class TallyingLog(SyncLog):
    """The agent's log of changes, which also counts them."""

    def __init__(self, who: str, tally: Tally) -> None:
        super().__init__(who)
        self._tally = tally

    def write(self, report: Report) -> None:
        """Log and count a reconciliation."""
        self._tally.reconciled(report)
        super().write(report)

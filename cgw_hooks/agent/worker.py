"""Threads of the agent. None of them ends before the agent: a fault is logged, and work goes on."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from cgw_hooks.node.hook_answer import log_failure

if TYPE_CHECKING:
    from collections.abc import Callable


def start(name: str, work: Callable[[], None]) -> threading.Thread:
    """Start a thread that ends with the process."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def attempt(what: str, work: Callable[[], object]) -> bool:
    """Carry out a piece of work. Log its failure, and return whether it was done."""
    try:
        work()
    except Exception as error:  # noqa: BLE001  (the agent must go on)
        log_failure("(all)", f"agent: {what}", error)
        return False
    return True


class WorkQueue:
    """Carries out pieces of work one after the other, in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        start(name, self._run)

    def add(self, work: Callable[[], None]) -> None:
        """Add a piece of work. This never waits."""
        self._waiting.put(work)

    def _run(self) -> None:
        while True:
            attempt(self._name, self._waiting.get())

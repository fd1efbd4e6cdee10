"""Messages to a thread that also waits for descriptors, and the answers that it gives."""

from __future__ import annotations

import os
import queue
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgw_hooks.agent.registry.presence import Health
    from cgw_hooks.agent.registry.watcher import Changes, Lost, Snapshot
    from cgw_hooks.errors import CgwError

    News = Snapshot | Changes | Lost | Health

Message = TypeVar("Message")


class Inbox(Generic[Message]):
    """The messages that wait for a thread; ``fileno()`` is then readable. Any thread adds some."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._descriptor

    def add(self, message: Message) -> None:
        """Add a message. This never waits."""
        self._messages.put(message)
        os.eventfd_write(self._descriptor, 1)

    def drain(self) -> Iterator[Message]:
        """Yield the messages that wait."""
        # A turn that failed may have left messages that the descriptor no longer tells of.
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)
        while True:
            try:
                yield self._messages.get_nowait()
            except queue.Empty:
                return


class Told(NamedTuple):
    """News that a thread of a session tells. It does not count once the session has ended."""

    session: object
    news: News


class Ticket:
    """A question to the registry. ``told`` is called, in its thread, once the answer is there."""

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        self._told = told
        self.is_done = False
        #: Why the answer is no; None if it is yes.
        self.refusal: CgwError | None = None
        #: The text of the answer, for the one who asked.
        self.text = ""

    def finish(self, refusal: CgwError | None = None, text: str = "") -> None:
        """Give the answer; only the first one counts."""
        if not self.is_done:
            self.refusal, self.text = refusal, text
            self.is_done = True
            self._told()

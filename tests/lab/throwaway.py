"""The base class of the lab's hosts: they are booted for a while and leave nothing behind."""

from abc import ABC, abstractmethod
from contextlib import ExitStack
from types import TracebackType
from typing import Self


class Throwaway(ABC):
    """A context manager: it runs inside the `with` block, and nothing of it after."""

    def __init__(self) -> None:
        self._until_end = ExitStack()

    @abstractmethod
    def _boot(self, until_end: ExitStack) -> None:
        """Boot it; `until_end` ends everything with it, even if the boot fails."""

    def __enter__(self) -> Self:
        with self._until_end as until_end:
            self._boot(until_end)
            self._until_end = until_end.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._until_end.close()

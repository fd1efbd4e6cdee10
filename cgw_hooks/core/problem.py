"""What is wrong, as a value: status rows, JSON, log lines and records are views of it."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import CgwError, one_line


class Problem(NamedTuple):
    """One thing that is wrong. ``code`` is for programs and does not change with the wording."""

    code: str
    subject: str
    message: str
    cure: str = ""

    def __str__(self) -> str:
        """The problem as one line."""
        return one_line(self.subject, self.message, self.cure)

    @classmethod
    def of(cls, error: CgwError) -> Problem:
        """The problem that an error is about."""
        return cls(error.code, error.subject, error.message, error.cure)

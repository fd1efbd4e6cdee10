"""A problem as a value; status rows, JSON, log lines and records are views of it."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import CgwError, one_line

#: How a cure begins that is a command for a shell, and nothing else.
_RUN = "run: "


class Problem(NamedTuple):
    """One problem. ``code`` is for programs and stays the same if the wording changes."""

    code: str
    subject: str
    message: str
    cure: str = ""

    def __str__(self) -> str:
        """Return the problem as one line."""
        return one_line(self.subject, self.message, self.cure)

    @property
    def command(self) -> str:
        """The cure as people type it into a shell; empty if the cure is not a command."""
        return self.cure.removeprefix(_RUN) if self.cure.startswith(_RUN) else ""

    def as_json(self) -> dict[str, str | None]:
        """The problem for ``--json``."""
        return {**self._asdict(), "cure": self.cure or None}

    @classmethod
    def of(cls, error: CgwError) -> Problem:
        """Make a problem of an error."""
        return cls(error.code, error.subject, error.message, error.cure)

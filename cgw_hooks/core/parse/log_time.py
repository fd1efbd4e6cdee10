"""What ``cgw log`` is asked for: since when, and how many lines."""

from __future__ import annotations

from datetime import datetime, timedelta

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse.port_spec import parse_duration

_CURE = "give a time like 2026-11-30 or 2026-11-30T14:00, or a duration like 2h"
_DIGITS = 7


class Since(NamedTuple):
    """A time as a person gives it: either so long ago, or a date; without a zone it is local."""

    seconds_ago: int = 0
    date: datetime | None = None

    def moment(self, now: datetime) -> datetime:
        """Return the time; ``now`` has the local time zone."""
        if self.date is None:
            return now - timedelta(seconds=self.seconds_ago)
        return self.date if self.date.tzinfo else self.date.astimezone()


def parse_since(text: str) -> Since:
    """Parse a date with or without a time, or a duration. Raises ``ValueError``."""
    try:
        if text[-1:].islower():
            return Since(parse_duration(text))
        return Since(date=datetime.fromisoformat(text))
    except ValueError:
        raise ValueError(_CURE) from None


def parse_count(text: str) -> int:
    """Parse a number of lines. Raises ``ValueError``."""
    if text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text):
        return int(text)
    raise ValueError("give a number, at least 1")

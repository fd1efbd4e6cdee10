"""Amounts for people: bytes, and lengths of time."""

from __future__ import annotations

_STEP = 1000
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_WHOLE = 10
_HINT = "cgw: %s are not known of connections that began while %s was 0; run: sysctl -w %s=1\n"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def size(count: int | None) -> str:
    """Format a number of bytes, for example ``1.5 MB``; "-" if it is not known."""
    if count is None:
        return "-"
    amount, unit = float(count), 0
    while round(amount) >= _STEP and unit + 1 < len(_UNITS):
        amount, unit = amount / _STEP, unit + 1
    shown = f"{amount:.1f}" if unit and round(amount, 1) < _WHOLE else f"{amount:.0f}"
    return f"{shown} {_UNITS[unit]}"


def length(seconds: float | None) -> str:
    """Format a length of time, for example ``3m 20s``; "-" if it is not known."""
    if seconds is None:
        return "-"
    left = max(0, int(seconds))
    if left < _MINUTE:
        return f"{left}s"
    if left < _HOUR:
        return f"{left // _MINUTE}m {left % _MINUTE:02}s"
    if left < _DAY:
        return f"{left // _HOUR}h {left % _HOUR // _MINUTE:02}m"
    return f"{left // _DAY}d {left % _DAY // _HOUR:02}h"


def missing_bytes() -> str:
    """Return a line that says how bytes can be known."""
    return _hint("bytes", "net.netfilter.nf_conntrack_acct")


def missing_ages() -> str:
    """Return a line that says how ages can be known."""
    return _hint("ages", "net.netfilter.nf_conntrack_timestamp")


def _hint(what: str, setting: str) -> str:
    return _HINT % (what, setting, setting)

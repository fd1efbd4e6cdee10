"""Settings of the kernel under /proc/sys."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/proc/sys")


def read(name: str) -> str | None:
    """The value of a setting; None where there is none, as for a device that is not there."""
    try:
        return (_ROOT / name).read_text(encoding="ascii").strip()
    except OSError:
        return None


def write(name: str, value: str) -> None:
    """Give a setting a value. Raises ``OSError``."""
    (_ROOT / name).write_text(value, encoding="ascii")

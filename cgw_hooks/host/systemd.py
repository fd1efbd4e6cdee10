"""Starts, stops and disables units, if systemd runs on this host."""

from __future__ import annotations

import os
import re
import subprocess


def is_running() -> bool:
    """Whether systemd is this host's init (the test of sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def take_out_of_service(unit: str) -> bool:
    """Stop and disable a unit. Return whether it was active or enabled."""
    served = _answers("is-active", unit) or is_enabled(unit)
    if served:
        _answers("disable", "--now", unit)
    return served


def start(unit: str, *, anew: bool = False) -> bool:
    """Start a unit, or with ``anew`` restart it; return whether it runs now."""
    return _answers("restart" if anew else "start", unit)


def stop(unit: str) -> bool:
    """Stop a unit; return whether it does not run now."""
    return _answers("stop", unit)


def read_units_anew() -> None:
    """Make systemd read its unit files again."""
    _answers("daemon-reload")


def is_enabled(unit: str) -> bool:
    """Whether an admin has enabled a unit. A unit that cannot be enabled is "static"."""
    return "enabled" in _ask("is-enabled", unit).stdout.splitlines()


def last_change(unit: str) -> float | None:
    """Return when a unit was last started or reloaded, in seconds since 1970; None if never.

    systemd does not keep the time of a reload by itself, but each one changes the unit's state.
    """
    said = _ask("show", "--timestamp=unix", "--property=StateChangeTimestamp", unit).stdout
    found = re.search(r"=@(\d+)", said)
    return float(found[1]) if found else None


def _answers(*arguments: str) -> bool:
    return _ask("--quiet", *arguments).returncode == 0


def _ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  (fixed words and names of our units)
        ["systemctl", *arguments],  # noqa: S607  (found on PATH, as elsewhere)
        capture_output=True, check=False, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip

"""Starts, stops and disables units, if systemd runs on this host."""

from __future__ import annotations

import os
import subprocess


def is_running() -> bool:
    """Whether systemd is this host's init (the test of sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def take_out_of_service(unit: str) -> bool:
    """Stop and disable a unit. Return whether it was active or enabled."""
    served = _answers("is-active", unit) or _answers("is-enabled", unit)
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


def _answers(*arguments: str) -> bool:
    done = subprocess.run(  # noqa: S603  (fixed words and names of our units)
        ["systemctl", "--quiet", *arguments],  # noqa: S607  (found on PATH, as elsewhere)
        capture_output=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode == 0

"""The hook files that libvirt runs, and whether a daemon of libvirt knows them."""

from __future__ import annotations

import os
import re
import subprocess

from cgw_hooks.core.named_tuple import NamedTuple

HOOK = "50-cgw"
_FOLDER = "/etc/libvirt/hooks"
#: The line that `cgw install` and the Debian package write (hooks/qemu.d/50-cgw).
_CALLED = re.compile(r"^python='?([^' ]*)'? cgw='?([^' ]*)'?", re.MULTILINE)


class HookFile(NamedTuple):
    """A hook of cgw."""

    path: str
    is_there: bool
    is_executable: bool
    #: The interpreter and the program that it calls; empty if they are found on PATH.
    python: str = ""
    cgw: str = ""


def path(driver: str) -> str:
    """Return the place of a driver's hook."""
    return f"{_FOLDER}/{driver}.d/{HOOK}"


def read(driver: str) -> HookFile:
    """Return what is known of a driver's hook."""
    place = path(driver)
    try:
        with open(place, encoding="utf-8", errors="replace") as file:
            called = _CALLED.search(file.read())
    except OSError:
        return HookFile(place, os.path.exists(place), is_executable=False)
    python, cgw = called.groups() if called else ("", "")
    return HookFile(place, True, os.access(place, os.X_OK), python, cgw)


def known_since(driver: str) -> float | None:
    """Return since when at the latest a daemon can know of a driver's hooks.

    libvirt looks for hooks when it starts and when it is reloaded: if it finds one executable file
    of a driver, it later runs all (virHookCheck in src/util/virhook.c). When the first file was
    made is unknown, since files are replaced; the folder is older. The result is in seconds since
    1970; None if the file system does not tell.
    """
    single = f"{_FOLDER}/{driver}"
    born = [_birth(place) for place in (os.path.dirname(path(driver)), single)]
    return min((moment for moment in born if moment), default=None)


def _birth(place: str) -> float | None:
    """Return the birth of a file; Python has no statx(2)."""
    try:
        done = subprocess.run(  # noqa: S603  (fixed words)
            ["stat", "--format=%W", place],  # noqa: S607
            capture_output=True, check=False, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return float(done.stdout) or None if done.returncode == 0 else None
    except (OSError, ValueError):
        return None

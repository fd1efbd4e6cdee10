"""Asks dpkg which package a file belongs to."""

from __future__ import annotations

import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

_DATABASE = "var/lib/dpkg"


def owner(root: Path, path: str) -> str:
    """Return the Debian package below ``root`` that has this file; empty if none has.

    ``path`` is absolute, as in the root. A host without dpkg has no such package.
    """
    database = root / _DATABASE
    if not database.is_dir():
        return ""
    try:
        done = subprocess.run(  # noqa: S603  (a fixed program and our own path)
            ["dpkg-query", f"--admindir={database}", "--search", path],  # noqa: S607
            capture_output=True, check=False, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
    except FileNotFoundError:
        return ""
    package, _, _ = done.stdout.partition(": ")
    return package if done.returncode == 0 else ""

"""Makes folders under /run that only root can write to."""

from __future__ import annotations

import os
import stat

from cgw_hooks.errors import RecordError


def make_safe_directory(path: str) -> None:
    """Make the folder ``path``, or check that no other user can write to it.

    Raises ``RecordError`` if another user could have put records there: these would become NAT
    rules of this host.
    """
    try:
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            os.makedirs(path, mode=0o700, exist_ok=True)
            found = os.lstat(path)
    except OSError as error:
        raise RecordError(path, f"it cannot be made: {error.strerror}", "run: cgw sync") from error
    _refuse_unsafe(path, found)


def fault_of(path: str) -> RecordError | None:
    """Return the error of a folder that another user can write to; None also if there is none."""
    try:
        _refuse_unsafe(path, os.lstat(path))
    except RecordError as error:
        return error
    except OSError:
        return None
    return None


def _refuse_unsafe(path: str, found: os.stat_result) -> None:
    if found.st_uid == 0 != os.geteuid():
        raise RecordError(path, "it belongs to root", "run the command as root")
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid != os.geteuid()
        or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        raise RecordError(
            path,
            f"others than the user who runs cgw (uid {os.geteuid()}) can write to it",
            f"remove it, or run: chown root: {path}; chmod 700 {path}",
        )

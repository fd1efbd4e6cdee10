"""Folders under /run that only root can write to."""

from __future__ import annotations

import os
import stat

from cgw_hooks.errors import RecordError


def make_safe_directory(path: str) -> None:
    """Make ``path``, or see that it is ours alone.

    Raises ``RecordError`` where another user could have put records there: they
    would become translations of this host.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError as error:
        raise RecordError(path, f"it cannot be made: {error.strerror}", "mend it") from error
    if found.st_uid == 0 != os.geteuid():
        raise RecordError(path, "it is root's", "run the command as root")
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

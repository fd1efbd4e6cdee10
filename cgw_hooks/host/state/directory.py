"""The folder under /run: its safe owner and mode, and its one lock."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cgw_hooks.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds; a hook holds the lock for a few milliseconds.
_LOCK_WAIT = 20.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02


def make_safe_directory(path: str) -> None:
    """Make ``path``, or see that it is ours alone.

    Raises ``RecordError`` where another user could have put records there: they
    would become translations of this host.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError as error:
        raise RecordError(f"{path}: cannot be made: {error.strerror}; mend it") from error
    if found.st_uid == 0 != os.geteuid():
        raise RecordError(f"{path}: is root's; run it as root")
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid != os.geteuid()
        or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        raise RecordError(
            f"{path}: others than the user who runs cgw (uid {os.geteuid()}) can write to it; "
            f"remove it, or run: chown root: {path}; chmod 700 {path}"
        )


@contextmanager
def locked(directory: str, wait: float = _LOCK_WAIT) -> Iterator[None]:
    """Hold the node's one lock. ``wait``: seconds at most. Raises ``RecordError``.

    The kernel drops the lock when its holder dies.
    """
    make_safe_directory(directory)
    path = os.path.join(directory, "lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _lock(descriptor, path, wait)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str, wait: float) -> None:
    deadline, pause = time.monotonic() + wait, _FIRST_PAUSE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RecordError(
                    f"{path}: another cgw has held the lock for {wait:g} s; "
                    f"see who: fuser -v {path}"
                ) from None
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        else:
            return

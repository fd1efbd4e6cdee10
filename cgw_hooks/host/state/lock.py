"""The node's lock, a file in the runtime directory, and the lock of those who edit annotations.

The kernel releases the lock when its holder dies. If one holder hangs, the others wait only for a
short time. They wait longer for a queue of holders that each release the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from cgw_hooks.errors import RecordError
from cgw_hooks.host.state.directory import make_safe_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds. A hook holds the lock for a few milliseconds, a large sync for less than one second.
WAIT = 2.0
#: Seconds. A person can wait a little longer for another cgw than a hook can.
LONG_WAIT = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02
#: Seconds; the limit even if the holder of the lock changes all the time.
_LONGEST_WAIT = 30.0


class LockError(RecordError):
    """The lock cannot be taken, for example in a folder that others can write to."""


class LockTimeout(LockError):
    """Another process held the lock for too long."""

    code = "lock"


class Lock:
    """The lock: ``with Lock(directory): ...``. Raises ``LockError``, ``LockTimeout`` among them.

    ``check`` is called when the lock is taken. If it raises an exception, the lock is released.
    """

    def __init__(
        self,
        directory: str,
        wait: float = WAIT,
        name: str = "lock",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory = directory
        self._wait = wait
        self._name = name
        self._check = check
        self._descriptor = -1

    def __enter__(self) -> None:
        path = os.path.join(self._directory, self._name)
        try:
            make_safe_directory(self._directory)
            self._descriptor = _open(path)
        except RecordError as error:
            raise LockError(error.subject, error.message, error.cure) from error
        except OSError as error:
            raise LockError(
                path, f"it cannot be opened: {error.strerror}", "run: cgw sync"
            ) from error
        try:
            self._acquire(path)
            self._check()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def _acquire(self, path: str) -> None:
        begun = since = time.monotonic()
        pause, taken = _FIRST_PAUSE, self._taken()
        while not self._try():
            now = time.monotonic()
            if self._taken() != taken:  # another holder: no process hangs
                since, taken = now, self._taken()
            if now - since > self._wait or now - begun > max(_LONGEST_WAIT, self._wait):
                raise LockTimeout(
                    path,
                    f"another cgw has held the lock for {self._wait:g} s",
                    f"see who: fuser -v {path}",
                )
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        try:
            os.utime(self._descriptor)
        except OSError:  # a file system that has become read-only
            return

    def _try(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _taken(self) -> int:
        """Return when the lock was last taken: each holder sets the file's time."""
        return os.fstat(self._descriptor).st_mtime_ns


def _open(path: str) -> int:
    """Open the lock file, for reading only if the file system has become read-only."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, flags | os.O_RDONLY)

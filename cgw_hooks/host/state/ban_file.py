"""The file of the bans, in the folder of what outlives a reboot."""

from __future__ import annotations

import os
import stat

from cgw_hooks.errors import RecordError
from cgw_hooks.host.state.directory import make_safe_directory
from cgw_hooks.host.state.lock import Lock

NAME = "bans"
#: How to go on without a file that cannot be read.
CURE = "look at it, or move it away: mv {0} {0}.damaged; then run: cgw sync"


def locked(directory: str, wait: float) -> Lock:
    """Return the lock of those who change or restore bans, for ``with``. Raises ``LockError``.

    ``directory`` is the runtime directory. ``wait`` is the longest time, in seconds, to wait for
    one other holder.
    """
    return Lock(directory, wait, "denying")


def read(folder: str) -> str:
    """Return the content; empty if there is no file.

    Raises ``RecordError`` if it cannot be read, or if others than root can write to it: what it
    names is denied the published ports.
    """
    path = os.path.join(folder, NAME)
    try:
        with open(
            os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), encoding="ascii"
        ) as file:
            found = os.fstat(file.fileno())
            if found.st_uid not in {0, os.geteuid()} or found.st_mode & (
                stat.S_IWGRP | stat.S_IWOTH
            ):
                raise RecordError(
                    path,
                    "others than root can write to it",
                    f"look at it, then: chown root: {path}; chmod 600 {path}",
                )
            return file.read()
    except FileNotFoundError:
        return ""
    except PermissionError as error:
        raise RecordError(path, "it belongs to root", "run the command as root") from error
    except (OSError, ValueError) as error:
        raise RecordError(path, f"it cannot be read: {error}", CURE.format(path)) from error


def write(folder: str, text: str) -> None:
    """Replace the file; a reader sees either the old or the new one. Empty text removes it.

    Raises ``RecordError``.
    """
    path = os.path.join(folder, NAME)
    make_safe_directory(folder)
    try:
        if not text:
            if os.path.lexists(path):
                os.unlink(path)
            return
        new = path + ".new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(new, flags, 0o600), "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        _sync_folder(folder)
    except OSError as error:
        raise RecordError(
            path, f"it cannot be written: {error.strerror}", "make it writable, and try again"
        ) from error


def _sync_folder(folder: str) -> None:
    """Let the new name survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The files in which a plain xl guest may declare its ports: annotations and xl's configs."""

from __future__ import annotations

import os
import stat

from cgw_hooks.errors import InvalidConfig
from cgw_hooks.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGS = ("/etc/xen", "/etc/xen/auto")


def annotation_file(guest: str) -> str:
    """Return the path of a guest's annotation; empty for a name that no file can have."""
    if not guest or guest.startswith(".") or "/" in guest or "\0" in guest:
        return ""
    return os.path.join(paths.guests_directory(), f"{guest}.xml")


def read(path: str) -> bytes | None:
    """Return a file's content; None if there is none. Raises ``InvalidConfig``."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            return file.read() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except OSError as error:
        # The agent has no CAP_DAC_OVERRIDE.
        is_anothers = isinstance(error, PermissionError)
        cure = f"run: chown root {path}" if is_anothers else f"see: ls -l {path}"
        raise InvalidConfig(path, f"it cannot be read: {error.strerror}", cure) from error


def _at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a pipe of this name would let the agent wait for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def write(path: str, text: str) -> None:
    """Replace an annotation file; a reader sees either the old or the new text.

    The folder is made if there is none. Raises ``InvalidConfig`` if others than root could write
    to it, or if the file cannot be written.
    """
    directory = os.path.dirname(path)
    new = os.path.join(directory, f".{os.path.basename(path)}.new")
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        _refuse_unsafe(directory)
        if os.path.lexists(new):
            os.unlink(new)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o644)
            file.write(text if text.endswith("\n") else f"{text}\n")
            file.flush()
            os.fsync(descriptor)
        os.replace(new, path)
    except OSError as error:
        raise InvalidConfig(path, f"it cannot be written: {error.strerror}") from error


def remove(path: str) -> None:
    """Remove an annotation file, if there is one. Raises ``InvalidConfig``."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidConfig(path, f"it cannot be removed: {error.strerror}") from error


def _refuse_unsafe(directory: str) -> None:
    found = os.stat(directory)
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        cure = f"run: chown root {directory}; chmod go-w {directory}"
        raise InvalidConfig(directory, "others than root can write to it", cure)


def configs(guest: str) -> Iterator[tuple[str, str]]:
    """Yield the path and text of each xl config, a linked file only once.

    A file that cannot be read is ignored, unless its file name is the guest's name: then this
    raises ``InvalidConfig``. The agent, for example, sees no file in a home folder.
    """
    seen = set()
    for directory in CONFIGS:
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            continue
        for name in names:
            path = os.path.join(directory, name)
            real = os.path.realpath(path)
            if real in seen or name.startswith("."):
                continue
            seen.add(real)
            try:
                content = _read_config(path, real)
            except InvalidConfig:
                if is_named_after(path, guest):
                    raise
                continue
            if content is not None:
                yield path, content.decode("utf-8", "replace")


def is_named_after(path: str, guest: str) -> bool:
    """Whether a config's file name is the guest's name, with or without ".cfg"."""
    return os.path.basename(path) in {guest, f"{guest}.cfg"}


def _read_config(path: str, real: str) -> bytes | None:
    content = read(path)
    if content is None and os.path.islink(path) and not os.path.isdir(path):
        raise InvalidConfig(
            path,
            f"it leads to {real}, which is not there; the agent sees no file in /root and /home",
            f"move the file itself to {path}",
        )
    return content

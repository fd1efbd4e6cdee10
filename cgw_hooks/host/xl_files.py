"""The files in which a plain xl guest may declare its ports: annotations and xl's configs."""

from __future__ import annotations

import os

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
    """Return a file's content; None if there is no file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def configs() -> Iterator[tuple[str, str]]:
    """Yield the path and text of each xl config, a linked file only once."""
    seen = set()
    for directory in CONFIGS:
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            continue
        for name in names:
            path = os.path.join(directory, name)
            real = os.path.realpath(path)
            if real in seen or name.startswith(".") or not os.path.isfile(path):
                continue
            seen.add(real)
            content = read(path)
            if content is not None:
                yield path, content.decode("utf-8", "replace")

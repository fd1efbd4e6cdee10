"""An initramfs in cpio's "newc" format (the kernel's Documentation/driver-api/early-userspace)."""

from collections.abc import Mapping
from pathlib import PurePosixPath

_FOLDER_MODE = 0o040755
_PROGRAM_MODE = 0o100755
_CONSOLE_MODE = 0o020600
_CONSOLE_DEVICE = (5, 1)


def initramfs(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files (path without leading slash: content), all executable.

    It also has /dev/console: without it the kernel starts /init with no standard files.
    """
    folders = {"dev"}
    for path in files:
        folders |= {str(parent) for parent in PurePosixPath(path).parents} - {"."}
    entries = [_entry(folder, _FOLDER_MODE) for folder in sorted(folders)]
    entries.append(_entry("dev/console", _CONSOLE_MODE, device=_CONSOLE_DEVICE))
    entries += [_entry(path, _PROGRAM_MODE, content) for path, content in files.items()]
    return b"".join(entries) + _entry("TRAILER!!!", 0)


def _entry(path: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    name = path.encode() + b"\0"
    inode = owner = group = modified = check = 0
    links = 1
    fields = (inode, mode, owner, group, links, modified, len(content), 0, 0, *device)
    header = b"070701" + b"".join(b"%08X" % field for field in (*fields, len(name), check))
    return _padded(header + name) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)

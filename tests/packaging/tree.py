"""All files of a root, to compare what a package has left of it."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_OF_THE_LAB = ("proc", "sys", "dev", "run", "usr/lib/cgw-lab", "var/log/syslog")
"""File systems of the kernel, the folder of the packages, and the syslog that the lab keeps."""
DPKGS_OWN = (
    "var/lib/dpkg/",  # what is installed, and what was
    "var/log/dpkg.log",
    "var/log/apt/",
    "var/log/alternatives.log",
    "var/lib/apt/",  # which packages came as dependencies
    "var/cache/apt/",
)

Tree = dict[str, tuple[str, ...]]


def tree(root: Path, *, over: Path) -> Tree:
    """Path -> type, mode, owner, group, and the content's hash or the link's target.

    The root is a layer over another root. A file whose content is the same in there has no hash;
    if its times and size are the same too, it is not read.
    """
    return {
        name: _described(f"{root}/{name}", found, f"{over}/{name}")
        for name, found in _walk(str(root))
    }


def differences(before: Tree, after: Tree, but_for: Iterable[str] = DPKGS_OWN) -> list[str]:
    """One line for each path that came, went or changed, but for those below some others."""
    left_out = tuple(but_for)
    lines = []
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path) and not f"{path}/".startswith(left_out):
            was, is_now = (" ".join(one.get(path, ("-",))) for one in (before, after))
            lines.append(f"{path}: {was} -> {is_now}")
    return lines


def _walk(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Paths below the root, as strings: pathlib would take four times as long."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(f"{root}/{folder}") as entries:
            for entry in entries:
                name = f"{folder}{entry.name}"
                if name not in _OF_THE_LAB:
                    yield name, entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{name}/")


def _described(path: str, found: os.stat_result, below: str) -> tuple[str, ...]:
    content = ""
    if stat.S_ISLNK(found.st_mode):
        content = str(Path(path).readlink())
    elif stat.S_ISREG(found.st_mode):
        content = _content(path, found, below)
    return (stat.filemode(found.st_mode), str(found.st_uid), str(found.st_gid), content)


def _content(path: str, found: os.stat_result, below: str) -> str:
    try:
        there = os.lstat(below)
    except OSError:  # no such file, or no such folder
        return _digest(path)
    if not stat.S_ISREG(there.st_mode):
        return _digest(path)
    if _times_and_size(found) == _times_and_size(there):
        return ""
    digest = _digest(path)
    return "" if digest == _digest(below) else digest


def _times_and_size(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

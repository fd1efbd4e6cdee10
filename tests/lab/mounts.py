"""The mount system calls that a node's first process makes. Imports nothing of the project."""

import ctypes
import os
from pathlib import Path

READ_ONLY = 1
NOSUID_NODEV_NOEXEC = 2 | 4 | 8
REMOUNT = 32
BIND = 4096
_DETACH = 2
_CLONE_NEWCGROUP = 0x02000000

_libc = ctypes.CDLL(None, use_errno=True)


def mount(
    kind: str, target: Path, *, source: str | None = None, flags: int = 0, options: str = ""
) -> None:
    """Mount a file system of this kind on `target`, which is made when missing."""
    target.mkdir(parents=True, exist_ok=True)
    arguments = [text.encode() for text in (source or kind, str(target), kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), options.encode()), str(target))


def bind_read_only(source: Path, target: Path) -> None:
    """Show the folder `source` at `target`, read-only."""
    mount("none", target, source=str(source), flags=BIND)
    mount("none", target, source=str(source), flags=BIND | REMOUNT | READ_ONLY)


def change_root(new_root: Path) -> None:
    """Make `new_root` (a mount point) the root, and unmount the old root and all its mounts."""
    old_root = new_root / "old-root"
    old_root.mkdir()
    _check(_libc.pivot_root(str(new_root).encode(), str(old_root).encode()), str(new_root))
    os.chdir("/")
    _check(_libc.umount2(b"/old-root", _DETACH), "/old-root")
    Path("/old-root").rmdir()


def new_cgroup_namespace() -> None:
    """Make the present groups of this process the roots of the hierarchies that it sees."""
    _check(_libc.unshare(_CLONE_NEWCGROUP), "cgroup namespace")


def _check(result: int, where: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), where)

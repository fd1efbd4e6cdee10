"""Runs one program in a throw-away layer over a Debian root, without a network.

Run as a program, in new mount, UTS, IPC, process and network namespaces:
`chroot_init LOWER-ROOT MOUNT-POINT SHARED-FOLDER PROGRAM ARGUMENT...`. The shared folder of the
machine is /build in there; what the program writes elsewhere is in memory, and goes with it.
"""

import os
import sys
from pathlib import Path

from tests.lab import host_init, mounts

SHARED = "/build"


def main(lower: str, mount_point: str, shared: str, *argv: str) -> None:
    """Enter the root, and become the program."""
    root = host_init._overlay(Path(lower), Path(mount_point))  # noqa: SLF001
    host_init._kernel_file_systems(root)  # noqa: SLF001
    mounts.mount("none", root / SHARED.lstrip("/"), source=shared, flags=mounts.BIND)
    mounts.change_root(root)
    os.chdir(SHARED)
    os.execvp(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A root folder as a disk image, made without a loop device or a mount."""

import shutil
import subprocess
from pathlib import Path

_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin"


class DiskError(Exception):
    """The disk could not be made; the text says why."""


def make_disk(root: Path, disk: Path, *, free_mib: int) -> None:
    """Write an ext4 file system with the files of `root`. Raises DiskError.

    It has no journal: nobody needs the disk of an emulator after a crash.
    """
    if shutil.which("mke2fs", path=_FOLDERS) is None:
        raise DiskError("mke2fs is not installed (see tests/lab/APT_PACKAGES)")
    used = subprocess.run(["du", "-sm", str(root)], check=True, capture_output=True, text=True)
    size = int(used.stdout.split()[0]) + free_mib
    made = subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal",
         "-d", str(root), str(disk), f"{size}M"],
        env={"PATH": _FOLDERS}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode != 0:
        raise DiskError(f"mke2fs failed: {made.stderr.strip()}")

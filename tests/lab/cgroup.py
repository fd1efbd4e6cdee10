"""A part of the machine's cgroups that belongs to one host of the lab.

libvirt starts LXC guests only if it can write to cgroups. Both versions are supported: version 1
has one hierarchy per controller, version 2 has a single one.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.namespace import PREFIX, owner_is_gone

LEAF = "init"
"""The processes of a host are in this group of its group: version 2 allows none beside groups."""

_NEEDED_CONTROLLERS = ("cpu", "memory")
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy: its file system ("cgroup", "cgroup2") and mount option."""

    mount_point: Path
    kind: str
    controllers: str

    @property
    def place_in_host(self) -> str:
        """The mount point of the hierarchy, below the root of a host of the lab."""
        folder = "sys/fs/cgroup"
        return folder if self.kind == "cgroup2" else f"{folder}/{self.mount_point.name}"


def hierarchies() -> list[Hierarchy]:
    """The machine's hierarchies for libvirt: those of version 1, else that of version 2."""
    known = {line.split()[0] for line in Path("/proc/cgroups").read_text().splitlines()}
    found: list[Hierarchy] = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, kind, options, *_ = line.split()
        if kind in {"cgroup", "cgroup2"}:
            controllers = [option for option in options.split(",") if option in known]
            named = [option for option in options.split(",") if option.startswith("name=")]
            mount_option = ",".join([*controllers, *(["none", *named] if named else [])])
            if not any((kind, mount_option) == (one.kind, one.controllers) for one in found):
                found.append(Hierarchy(Path(mount_point), kind, mount_option))
    version_1 = [hierarchy for hierarchy in found if hierarchy.kind == "cgroup"]
    return version_1 or found[:1]


def process_files(group: str) -> list[Path]:
    """The files through which a process joins a host of the lab."""
    return [found.mount_point / group / LEAF / "cgroup.procs" for found in hierarchies()]


@contextmanager
def cgroups(label: str) -> Iterator[str]:
    """A group `cgw-PID-label` in every hierarchy, removed at the end; gives its name."""
    name = f"{PREFIX}-{os.getpid()}-{label}"
    try:
        for hierarchy in hierarchies():
            _make(hierarchy.mount_point / name)
        yield name
    finally:
        for hierarchy in hierarchies():
            _remove(hierarchy.mount_point / name)


def sweep_cgroups() -> None:
    """Remove the groups that a killed run left behind."""
    for hierarchy in hierarchies():
        for group in hierarchy.mount_point.glob(f"{PREFIX}-*"):
            if owner_is_gone(group.name):
                _remove(group)


def _make(group: Path) -> None:
    passed_on = group.parent / "cgroup.subtree_control"
    if passed_on.exists():
        for controller in set(_NEEDED_CONTROLLERS) - set(passed_on.read_text().split()):
            # This fails if the machine itself is a container: LXC guests will not start there.
            with contextlib.suppress(OSError):
                passed_on.write_text(f"+{controller}")
    group.mkdir()
    for inherited in ("cpuset.cpus", "cpuset.mems"):
        if (group / "cgroup.clone_children").exists() and (group / inherited).exists():
            (group / inherited).write_text((group.parent / inherited).read_text())
            (group / "cgroup.clone_children").write_text("1")
    (group / LEAF).mkdir()


def _remove(group: Path) -> None:
    """Remove a group and the groups in it; their last processes may still be leaving."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for folder, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                Path(folder).rmdir()
                break
            except FileNotFoundError:  # another run sweeps too
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

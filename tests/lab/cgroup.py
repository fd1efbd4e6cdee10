"""A part of the machine's cgroup (version 1) hierarchies that a host of the lab has for itself.

libvirt starts LXC guests only where it can write to cgroups. A machine with cgroup version 2 has
none of these hierarchies; LXC guests cannot be started in the lab there.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.namespace import PREFIX, owner_is_gone

_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup hierarchy; `controllers` is its mount option ("cpu,cpuacct")."""

    mount_point: Path
    controllers: str


def hierarchies() -> list[Hierarchy]:
    """The machine's version 1 hierarchies; none on a machine with version 2."""
    known = {line.split()[0] for line in Path("/proc/cgroups").read_text().splitlines()}
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, kind, options, *_ = line.split()
        if kind == "cgroup":
            controllers = [option for option in options.split(",") if option in known]
            named = [option for option in options.split(",") if option.startswith("name=")]
            mount_option = ",".join([*controllers, *(["none", *named] if named else [])])
            found.append(Hierarchy(Path(mount_point), mount_option))
    return found


@contextmanager
def cgroups(label: str) -> Iterator[str]:
    """A group `cgw-PID-label` in every hierarchy, removed at the end; gives its name."""
    name = f"{PREFIX}-{os.getpid()}-{label}"
    try:
        for hierarchy in hierarchies():
            group = hierarchy.mount_point / name
            group.mkdir()
            for inherited in ("cpuset.cpus", "cpuset.mems"):
                if (group / inherited).exists():
                    value = (hierarchy.mount_point / inherited).read_text()
                    (group / inherited).write_text(value)
                    (group / "cgroup.clone_children").write_text("1")
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


def _remove(group: Path) -> None:
    """Remove a group and those in it, which their last processes may be about to leave."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for folder, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                Path(folder).rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

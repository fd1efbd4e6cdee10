"""What a run of the lab has, and may have left, on the machine. Other runs may go on beside it."""

from pathlib import Path

from tests.lab.cgroup import hierarchies
from tests.lab.namespace import NAMESPACES_FOLDER


def leftovers_of(run: int) -> list[str]:
    """The namespaces, cgroups and mounts of the lab of this process."""
    names = f"cgw-{run}-*"
    found = [str(path) for path in NAMESPACES_FOLDER.glob(names)]
    for hierarchy in hierarchies():
        found += [str(path) for path in hierarchy.mount_point.glob(names)]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return found + [line for line in mounts if f"cgw-{run}-" in line or "mount-point" in line]


def processes_in(process_namespace: int) -> list[str]:
    """The command lines of the processes in this namespace."""
    return [_command_line(path) for path in _processes() if process_namespace == _namespace(path)]


def children_of(process: int) -> list[str]:
    """The processes that this one has started, as "PID COMMAND LINE"."""
    lines = []
    for path in _processes():
        _, _, rest = _read(path / "stat").rpartition(")")
        if rest.split()[1:2] == [str(process)]:
            lines.append(f"{path.name} {_command_line(path)}")
    return lines


def is_there(listed: str) -> bool:
    """Whether a process is still there; `listed` is a line of `children_of`."""
    pid, _, line = listed.partition(" ")
    return _command_line(Path("/proc", pid)) == line


def processes_marked(mark: str) -> list[str]:
    """The command lines of those that have `mark` in their environment, and of their hosts."""
    marked = [path for path in _processes() if mark in _read(path / "environ")]
    hosts = {_namespace(path) for path in marked} - {_namespace(Path("/proc/self"))}
    return [_command_line(p) for p in _processes() if p in marked or _namespace(p) in hosts]


def _processes() -> list[Path]:
    return sorted(Path("/proc").glob("[0-9]*"))


def _namespace(process: Path) -> int:
    """Its process namespace; 0 of a process that has ended."""
    try:
        return (process / "ns/pid").stat().st_ino
    except OSError:
        return 0


def _command_line(process: Path) -> str:
    return _read(process / "cmdline").replace("\0", " ")


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""

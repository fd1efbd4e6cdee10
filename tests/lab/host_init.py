"""Process 1 of a host: makes its file systems, reaps its processes, keeps its syslog.

Run as a program, in new mount, UTS, IPC and process namespaces:
`host_init HOSTNAME LOWER-ROOT GUEST-FOLDER MOUNT-POINT CGROUP`. Prints its process id, as the
machine sees it, when the host is ready. Ends when its standard input does, that is, when the
process that holds the host ends, however it ends; the kernel then kills whatever else runs in the
host, and the host's file systems go with the namespace.

It must reap at once: libvirt waits up to 2 s for QEMU's process to be gone.
"""

import os
import select
import signal
import socket
import stat
import sys
from pathlib import Path

from tests.lab import cgroup, mounts

GUEST_FOLDER = "usr/lib/cgw-lab"
SYSLOG_FILE = Path("/var/log/syslog")
_DEVICES = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9),
    "tty": (5, 0), "net/tun": (10, 200), "fuse": (10, 229),
}  # fmt: skip
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


def main(hostname: str, lower: str, guest_folder: str, mount_point: str, group: str) -> None:
    """Build the node and serve it until standard input ends."""
    outside_pid = os.readlink("/proc/self")  # /proc is still the machine's own
    root = _overlay(Path(lower), Path(mount_point))
    mounts.bind_read_only(Path(guest_folder), root / GUEST_FOLDER)
    _kernel_file_systems(root)
    _private_cgroups(root, group)
    mounts.change_root(root)
    socket.sethostname(hostname)
    log = log_socket()
    sys.stdout.write(f"{outside_pid}\n")
    sys.stdout.flush()
    _serve(log)


def _overlay(lower: Path, mount_point: Path) -> Path:
    """A fresh root over the read-only `lower`; what the node writes is in memory."""
    mounts.mount("tmpfs", mount_point, options="mode=0755")
    upper, work = mount_point / "upper", mount_point / "work"
    upper.mkdir()
    work.mkdir()
    root = mount_point / "root"
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mounts.mount("overlay", root, options=options)
    return root


def _kernel_file_systems(root: Path) -> None:
    mounts.mount("proc", root / "proc", flags=mounts.NOSUID_NODEV_NOEXEC)
    mounts.mount("sysfs", root / "sys", flags=mounts.NOSUID_NODEV_NOEXEC)
    mounts.mount("tmpfs", root / "run", options="mode=0755")
    mounts.mount("tmpfs", root / "dev", options="mode=0755")
    for name, (major, minor) in _DEVICES.items():
        path = root / "dev" / name
        path.parent.mkdir(exist_ok=True)
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        path.chmod(0o666)
    for name, target in _LINKS.items():
        (root / "dev" / name).symlink_to(target)
    mounts.mount("devpts", root / "dev/pts", options="newinstance,ptmxmode=0666,mode=0620,gid=5")
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    mounts.mount("tmpfs", root / "dev/shm", options="mode=1777")


def _private_cgroups(root: Path, group: str) -> None:
    """Join this group of the machine's hierarchies, and show only what is in it."""
    hierarchies = cgroup.hierarchies()
    for hierarchy in hierarchies:
        (hierarchy.mount_point / group / "cgroup.procs").write_text("0")
    mounts.new_cgroup_namespace()
    for processes in cgroup.process_files(group):
        processes.write_text("0")
    mounts.mount("tmpfs", root / "sys/fs/cgroup", options="mode=0755")
    for hierarchy in hierarchies:
        place = root / hierarchy.place_in_host
        mounts.mount(hierarchy.kind, place, options=hierarchy.controllers)


def log_socket() -> socket.socket:
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind("/dev/log")
    Path("/dev/log").chmod(0o666)
    return log


def _serve(log: socket.socket) -> None:
    """Reap and log until standard input ends."""
    wake_up, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    os.set_blocking(wake_up, False)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    standard_input = sys.stdin.fileno()
    while True:
        readable, _, _ = select.select([standard_input, wake_up, log], [], [])
        if log in readable:
            write_message(log.recv(65536))
        if wake_up in readable:
            os.read(wake_up, 4096)
            _reap()
        if standard_input in readable and not os.read(standard_input, 4096):
            return


def write_message(message: bytes) -> None:
    with SYSLOG_FILE.open("ab") as file:
        file.write(message.rstrip(b"\0\n").replace(b"\n", b"\\n") + b"\n")


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])

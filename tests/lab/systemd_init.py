"""Becomes systemd as process 1 of a throw-away host, guarded so that it changes nothing else.

Run as a program, in new mount, UTS, IPC and process namespaces and in the host's own network:
`systemd_init HOSTNAME LOWER-ROOT MOUNT-POINT CGROUP-FOLDER GUEST-FOLDER`. Prints its process id, as
the machine sees it, just before it becomes systemd.

Guards: systemd believes that it owns the machine. The machine's kernel settings are read-only for
it but for those of its network, it has no capability that reaches past its namespaces (clock,
modules, audit), and the units that would use them are masked.
"""

import os
import socket
import sys
from pathlib import Path

from tests.lab import host_init, mounts

_MASKED = (
    "systemd-sysctl.service", "systemd-modules-load.service", "systemd-udevd.service",
    "systemd-udev-trigger.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket",
    "systemd-timesyncd.service", "systemd-random-seed.service", "systemd-pstore.service",
    "systemd-journald-audit.socket", "getty.target",
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer",
)  # fmt: skip
_NOT_STARTED = ("firewalld.service", "nftables.service")
"""At boot: a test starts the one that it is about."""
DENIED = (
    "sys_time", "sys_module", "sys_rawio", "sys_boot", "syslog", "wake_alarm", "audit_control",
    "audit_read", "mac_admin", "mac_override",
)  # fmt: skip
"""Capabilities that no program of the host has: they reach past its namespaces."""
WITHOUT_CAPABILITIES = (
    "/usr/bin/setpriv", "--bounding-set", ",".join(f"-{name}" for name in DENIED), "--",
)  # fmt: skip
"""The start of a command line in the host that runs the rest without them."""
_READ_ONLY_FOLDERS = ("sys", "irq", "bus")
CONSOLE = Path("/run/console")
"""What systemd says, in the host."""


def main(hostname: str, lower: str, mount_point: str, group: str, guest_folder: str) -> None:
    """Build the host and become its systemd."""
    outside_pid = os.readlink("/proc/self")  # /proc is still the machine's own
    Path(group, "cgroup.procs").write_text("0")
    mounts.new_cgroup_namespace()
    root = host_init._overlay(Path(lower), Path(mount_point))  # noqa: SLF001
    mounts.bind_read_only(Path(guest_folder), root / host_init.GUEST_FOLDER)
    host_init._kernel_file_systems(root)  # noqa: SLF001
    _guard(root)
    mounts.mount("cgroup2", root / "sys/fs/cgroup", flags=mounts.NOSUID_NODEV_NOEXEC)
    (root / "etc/machine-id").write_text("")
    for unit in _MASKED:
        (root / "etc/systemd/system" / unit).unlink(missing_ok=True)
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for folder in (root / "etc/systemd/system").glob("*.wants"):
        for unit in _NOT_STARTED:
            (folder / unit).unlink(missing_ok=True)
    mounts.change_root(root)
    socket.sethostname(hostname)
    sys.stdout.write(f"{outside_pid}\n")
    sys.stdout.flush()
    _become_systemd()


def _guard(root: Path) -> None:
    for name in _READ_ONLY_FOLDERS:
        path = root / "proc" / name
        if path.exists():
            mounts.bind_read_only(path, path)
    network = root / "proc/sys/net"
    mounts.mount("none", network, source=str(network), flags=mounts.BIND)
    mounts.mount("none", network, source=str(network), flags=mounts.BIND | mounts.REMOUNT)
    sysfs = root / "sys"
    flags = mounts.BIND | mounts.REMOUNT | mounts.READ_ONLY | mounts.NOSUID_NODEV_NOEXEC
    mounts.mount("none", sysfs, source=str(sysfs), flags=flags)


def _become_systemd() -> None:
    console = os.open(CONSOLE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(console, 1)
    os.dup2(console, 2)
    argv = [*WITHOUT_CAPABILITIES, "/lib/systemd/systemd", "--log-target=journal"]
    environment = {"container": "lab", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    os.execve(WITHOUT_CAPABILITIES[0], argv, environment)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A throw-away Debian host that is run by a real systemd, in namespaces of its own.

It is like tests/lab/host.py except for process 1, so units, their order and reloads are
systemd's own. It ends with the process that made it, however this process ends.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.lab import cgroup
from tests.lab.cache import cache_folder
from tests.lab.guest_image import guest_image
from tests.lab.host import Host, HostError
from tests.lab.namespace import PREFIX, Namespace, owner_is_gone
from tests.lab.systemd_init import CONSOLE, WITHOUT_CAPABILITIES

_CHECKOUT = Path(__file__).parent.parent.parent
_NAMESPACES = ("--mount", "--uts", "--ipc", "--pid")
_BOOT_SECONDS = 120.0
_PAUSE = 0.1


class SystemdHost(Host):
    """A context manager: systemd runs inside the `with` block, and nothing of it after."""

    def __init__(self, name: str, *, network: Namespace, root: Path) -> None:
        guest_folder = guest_image().folder
        super().__init__(name, network=network, root=root, guest_folder=guest_folder, cgroup="")

    def command(self, argv: Sequence[str]) -> list[str]:
        """Like that of every host, but without capabilities beyond its namespaces."""
        return super().command([*WITHOUT_CAPABILITIES, *argv])

    def _boot(self, until_end: ExitStack) -> None:
        group = until_end.enter_context(_unified_group(self.name))
        mount_point = cache_folder() / "mount-point"
        mount_point.mkdir(exist_ok=True)
        # The signal goes from this process to unshare, and from unshare to systemd: a run that is
        # killed leaves no process. A session of its own: Ctrl-C is for the test run alone.
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *self.network.enter_command(),
             "unshare", *_NAMESPACES, "--fork", "--kill-child",
             sys.executable, "-m", "tests.lab.systemd_init",
             self.name, str(self._root), str(mount_point), str(group),
             str(self._guest_folder)],
            cwd=_CHECKOUT, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        until_end.callback(_kill, holder)
        assert holder.stdout is not None
        assert holder.stderr is not None
        first_line = holder.stdout.readline()
        if not first_line:
            raise HostError(f"{self.name} did not come up: {holder.stderr.read().strip()}")
        self._pid = int(first_line)
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        """Raise HostError with the output of systemd if it does not start."""
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            state = self.run(
                ["systemctl", "is-system-running", "--wait"], check=False, timeout=_BOOT_SECONDS
            ).stdout.strip()
            if state == "running":
                return
            if state == "degraded":
                failed = self.run(["systemctl", "--failed", "--no-legend"]).stdout.strip()
                raise HostError(f"{self.name}: units failed: {failed}")
            time.sleep(_PAUSE)  # its socket is not there yet
        raise HostError(f"{self.name}: {self.path(CONSOLE).read_text()[-2000:]}")

    def systemctl(self, *arguments: str) -> None:
        """Run systemctl; it waits for the job. Raises HostError with the unit's journal."""
        done = self.run(["systemctl", *arguments], check=False, timeout=_BOOT_SECONDS)
        if done.returncode != 0:
            journal = self.run(["journalctl", "--no-pager", "-n", "40"], check=False).stdout
            raise HostError(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}\n{journal}")

    def is_active(self, unit: str) -> bool:
        """Whether systemd has the unit in service."""
        return self.run(["systemctl", "is-active", unit], check=False).stdout.strip() == "active"


@contextmanager
def _unified_group(label: str) -> Iterator[Path]:
    """A group of the machine's cgroup v2 hierarchy, which systemd needs; removed at the end."""
    hierarchy = _unified_hierarchy()
    for left in hierarchy.glob(f"{PREFIX}-*"):
        if owner_is_gone(left.name):
            cgroup._remove(left)  # noqa: SLF001
    group = hierarchy / f"{PREFIX}-{os.getpid()}-{label}"
    group.mkdir()
    try:
        yield group
    finally:
        cgroup._remove(group)  # noqa: SLF001


def _unified_hierarchy() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(mount_point)
    raise HostError("this machine has no cgroup v2 hierarchy, without which systemd does not boot")


def _kill(holder: "subprocess.Popen[str]") -> None:
    holder.kill()
    holder.wait()
    for stream in (holder.stdout, holder.stderr):
        if stream is not None:
            stream.close()

"""One throw-away Debian host: a process namespace with its own network, mounts, names and root.

This module does not know libvirt. The root is the cached Debian root with a layer in memory. All
of it ends with the process that made it, however this process ends.
"""

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.lab.cache import cache_folder
from tests.lab.namespace import Namespace
from tests.lab.throwaway import Throwaway

_CHECKOUT = Path(__file__).parent.parent.parent
_OWN_NAMESPACES = ("--mount", "--uts", "--ipc", "--pid")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}
_SYSLOG = "/var/log/syslog"


class HostError(Exception):
    """A command in a host failed, or the host could not be made; the text has the output."""


class Host(Throwaway):
    """A context manager: the host runs inside the `with` block, and nothing of it after."""

    def __init__(
        self, name: str, *, network: Namespace, root: Path, guest_folder: Path, cgroup: str
    ) -> None:
        super().__init__()
        self.name = name
        self.network = network
        self._root = root
        self._guest_folder = guest_folder
        self._cgroup = cgroup
        self._pid = 0

    @property
    def pid(self) -> int:
        """The host's first process, as the machine sees it."""
        return self._pid

    def configure(self) -> None:
        """Write the host's files; called once, when the host has just started."""

    def _boot(self, until_end: ExitStack) -> None:
        mount_point = cache_folder() / "mount-point"
        mount_point.mkdir(exist_ok=True)
        folders = [str(self._root), str(self._guest_folder), str(mount_point)]
        arguments = [self.name, *folders, self._cgroup]
        # A session of its own: the Ctrl-C of a terminal is for the test run, which then ends this.
        holder = subprocess.Popen(
            [*self.network.enter_command(), "unshare", *_OWN_NAMESPACES, "--fork", "--kill-child",
             sys.executable, "-m", "tests.lab.host_init", *arguments],
            cwd=_CHECKOUT, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        until_end.callback(_end, holder)
        assert holder.stdout is not None
        assert holder.stderr is not None
        first_line = holder.stdout.readline()
        if not first_line:
            raise HostError(f"{self.name} did not come up: {holder.stderr.read().strip()}")
        self._pid = int(first_line)
        self.configure()

    def command(self, argv: Sequence[str]) -> list[str]:
        """The machine's command line that runs `argv` inside the host."""
        enter = ["nsenter", f"--target={self._pid}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        return [*enter, "--cgroup", "--root", "--wd", "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 - named as in subprocess
        check: bool = True,
        timeout: float = 300.0,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host to its end.

        Raises HostError when it fails (and `check`), or takes longer than `timeout` seconds.
        """
        given = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        try:
            result: subprocess.CompletedProcess[str] = subprocess.run(
                self.command(argv), env={**_ENVIRONMENT, **(environment or {})},
                text=True, capture_output=True, check=False, timeout=timeout, **given,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise HostError(f"{self.name}: {shlex.join(argv)}: over {timeout:.0f} s") from error
        if check and result.returncode != 0:
            said = (result.stderr or result.stdout).strip()
            raise HostError(f"{self.name}: {shlex.join(argv)}: {result.returncode}: {said}")
        return result

    def popen(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command in the host, with pipes for its input and both outputs."""
        return subprocess.Popen(
            self.command(argv), env={**_ENVIRONMENT, **(environment or {})}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def path(self, inside: str | Path) -> Path:
        """A file of the host as this process sees it, for as long as the host lives.

        Symbolic links on the way are followed as the host follows them, not into the machine.
        """
        root = Path(f"/proc/{self._pid}/root")
        done, waiting = Path(), _steps(Path(inside))
        while waiting:
            step = waiting.pop(0)
            here = root / done / step
            if step == "..":
                done = done.parent
            elif here.is_symlink():
                target = here.readlink()
                done = Path() if target.is_absolute() else done
                waiting = _steps(target) + waiting
            else:
                done = done / step
        return root / done

    def write(self, inside: str | Path, content: str, *, mode: int = 0o644) -> None:
        """Write a file of the host; its folder is made when missing."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)

    def syslog(self) -> list[str]:
        """The messages in the host's syslog so far, one per line, with their priority."""
        path = self.path(_SYSLOG)
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def install(self, checkout: Path = _CHECKOUT) -> None:
        """Install the project from a checkout, as a user would, then install its hooks."""
        self.make_install(checkout)
        self.run(["cgw", "install"])

    def make_install(self, checkout: Path = _CHECKOUT) -> None:
        """Install the project from a checkout."""
        into = [f"DESTDIR={self.path('/')}", "PREFIX=/usr/local"]
        made = subprocess.run(
            ["make", "-C", str(checkout), "install", *into],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if made.returncode != 0:
            raise HostError(f"make install: {made.stderr.strip()}")


def _end(holder: "subprocess.Popen[str]") -> None:
    assert holder.stdin is not None
    holder.stdin.close()
    try:
        holder.wait(timeout=60)
    except subprocess.TimeoutExpired:
        holder.kill()
        holder.wait()
    for stream in (holder.stdout, holder.stderr):
        if stream is not None:
            stream.close()


def _steps(path: Path) -> list[str]:
    return [step for step in path.parts if step != "/"]

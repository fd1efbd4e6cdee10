"""One node of the lab: a Debian host of its own, with its own libvirtd.

The node is a process namespace with its own network, mounts, host name and IPC; its root is the
cached Debian root with a layer of memory over it. It ends with the process that made it.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.lab.cache import cache_folder
from tests.lab.namespace import Namespace
from tests.lab.network import NodeAddresses, remember_guests
from tests.lab.node_files import FOLDERS, config_files, programs

_INIT = Path(__file__).with_name("node_init.py")
_NAMESPACES = ("--mount", "--uts", "--ipc", "--pid")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}
_PID_FILE = "/run/libvirtd.pid"
_LIBVIRTD_LOG = "/var/log/libvirt/libvirtd.log"
_SYSLOG = "/var/log/syslog"


class NodeError(Exception):
    """A command in a node failed, or the node could not be made; the text has what it said."""


class Node:
    """A context manager: the node runs inside the `with` block, and nothing of it after."""

    def __init__(
        self,
        index: int,
        *,
        network: Namespace,
        root: Path,
        guest_folder: Path,
        firewall_backend: str | None = None,
    ) -> None:
        self.index = index
        self.name = f"node{index}"
        self.addresses = NodeAddresses(index)
        self.network = network
        self._root = root
        self._guest_folder = guest_folder
        self._firewall_backend = firewall_backend
        self._holder: subprocess.Popen[str] | None = None
        self._pid = 0

    def __enter__(self) -> "Node":
        try:
            self._boot()
            self._configure()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _boot(self) -> None:
        mount_point = cache_folder() / "mount-point"
        mount_point.mkdir(exist_ok=True)
        arguments = [self.name, str(self._root), str(self._guest_folder), str(mount_point)]
        # A session of its own: the Ctrl-C of a terminal is for the test run, which then ends this.
        self._holder = subprocess.Popen(
            [*self.network.enter_command(), "unshare", *_NAMESPACES, "--fork", "--kill-child",
             sys.executable, "-I", str(_INIT), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert self._holder.stdout is not None and self._holder.stderr is not None
        first_line = self._holder.stdout.readline()
        if not first_line:
            raise NodeError(f"{self.name} did not come up: {self._holder.stderr.read().strip()}")
        self._pid = int(first_line)

    def _configure(self) -> None:
        others = {f"node{n}": NodeAddresses(n).guest_network for n in range(1, 4)}
        for path, content in config_files(self.index, others, self._firewall_backend).items():
            self.write(path, content)
        for path, content in programs().items():
            self.write(path, content, mode=0o755)
        # The packaged network would take the lab's uplink subnet; tests define what they need.
        for leftover in ("autostart/default.xml", "default.xml"):
            self.path(f"/etc/libvirt/qemu/networks/{leftover}").unlink(missing_ok=True)
        for folder in FOLDERS:
            self.path(folder).mkdir(parents=True, exist_ok=True)

    def _end(self) -> None:
        if self._holder is None:
            return
        holder, self._holder = self._holder, None
        assert holder.stdin is not None
        holder.stdin.close()
        try:
            holder.wait(timeout=10)
        except subprocess.TimeoutExpired:
            holder.kill()
            holder.wait()
        for stream in (holder.stdout, holder.stderr):
            if stream is not None:
                stream.close()

    # Commands and files

    def command(self, argv: Sequence[str]) -> list[str]:
        """The machine's command line that runs `argv` inside the node."""
        enter = ["/usr/bin/nsenter", f"--target={self._pid}", "--mount", "--uts", "--ipc"]
        return [*enter, "--net", "--pid", "--root", "--wd", "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 - named as in subprocess
        check: bool = True,
        timeout: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the node to its end.

        Raises NodeError when it fails (and `check`), or takes longer than `timeout` seconds.
        """
        try:
            result = subprocess.run(
                self.command(argv), input=input, env={**_ENVIRONMENT, **(environment or {})},
                stdin=subprocess.DEVNULL if input is None else None,
                text=True, capture_output=True, check=False, timeout=timeout,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise NodeError(f"{self.name}: {shlex.join(argv)}: over {timeout:.0f} s") from error
        if check and result.returncode != 0:
            said = (result.stderr or result.stdout).strip()
            raise NodeError(f"{self.name}: {shlex.join(argv)}: {result.returncode}: {said}")
        return result

    def popen(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command in the node, with pipes for its input and both outputs."""
        return subprocess.Popen(
            self.command(argv), env={**_ENVIRONMENT, **(environment or {})}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def path(self, inside: str | Path) -> Path:
        """A file of the node as this process sees it, for as long as the node lives.

        Symbolic links on the way are followed as the node follows them, not into the machine.
        """
        root = Path(f"/proc/{self._pid}/root")
        done, waiting = Path(), [part for part in Path(inside).parts if part != "/"]
        while waiting:
            part = waiting.pop(0)
            here = root / done / part
            if part == "..":
                done = done.parent
            elif here.is_symlink():
                target = here.readlink()
                if target.is_absolute():
                    done = Path()
                waiting = [step for step in target.parts if step != "/"] + waiting
            else:
                done = done / part
        return root / done

    def write(self, inside: str | Path, content: str, *, mode: int = 0o644) -> None:
        """Write a file of the node; its folder is made when missing."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)

    def syslog(self) -> list[str]:
        """What was sent to the node's syslog so far, one message to a line, priority included."""
        path = self.path(_SYSLOG)
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def install(self, checkout: Path) -> None:
        """Install the project from a checkout, as a user would, then let it put its hooks in place."""
        subprocess.run(
            ["make", "-C", str(checkout), "install", f"DESTDIR={self.path('/')}",
             "PREFIX=/usr/local"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        self.run(["cgw", "install"])

    # libvirt

    def start_libvirtd(self) -> None:
        """Start the daemon; it answers when this returns."""
        self.run(["libvirtd", "--daemon", "--listen", "--pid-file", _PID_FILE])
        # It accepts connections before its drivers are up, and answers the first once they are.
        answer = self.virsh("uri", check=False)
        if answer.returncode != 0:
            log = self.path(_LIBVIRTD_LOG).read_text().splitlines()
            errors = "\n".join([line for line in log if " error : " in line][-10:])
            raise NodeError(f"{self.name}: libvirtd: {answer.stderr.strip()}\n{errors}")

    def stop_libvirtd(self) -> None:
        """End the daemon properly; guests live on."""
        self._signal_libvirtd("TERM")

    def kill_libvirtd(self) -> None:
        """End the daemon as a crash would (SIGKILL); guests live on."""
        self._signal_libvirtd("KILL")
        self.path(_PID_FILE).unlink(missing_ok=True)

    def restart_libvirtd(self) -> None:
        """Stop and start the daemon."""
        self.stop_libvirtd()
        self.start_libvirtd()

    def reload_libvirtd(self) -> None:
        """Let the daemon read its configuration and hooks again (SIGHUP)."""
        self.run(["kill", "-HUP", self.path(_PID_FILE).read_text().strip()])

    def _signal_libvirtd(self, name: str, patience: float = 10.0) -> None:
        pid = self.path(_PID_FILE).read_text().strip()
        process = self.path("/proc") / pid
        self.run(["kill", f"-{name}", pid])
        deadline = time.monotonic() + patience
        while process.exists():
            if time.monotonic() > deadline:
                raise NodeError(f"{self.name}: libvirtd did not end on SIG{name}")
            time.sleep(0.01)

    def virsh(
        self, *arguments: str, driver: str = "qemu", input: str | None = None, check: bool = True  # noqa: A002
    ) -> subprocess.CompletedProcess[str]:
        """Run virsh, on the driver's system connection."""
        command = ["virsh", "--quiet", "--connect", f"{driver}:///system", *arguments]
        return self.run(command, input=input, check=check)

    def define(self, xml: str) -> None:
        """Define a guest; its driver is the definition's type."""
        driver = "lxc" if "<domain type='lxc'" in xml else "qemu"
        self.virsh("define", "/dev/stdin", driver=driver, input=xml)
        remember_guests(self.network, xml)

    def start(self, name: str, *, driver: str = "qemu") -> None:
        """Start a defined guest."""
        self.virsh("start", name, driver=driver)

    def destroy(self, name: str, *, driver: str = "qemu") -> None:
        """Pull a guest's plug."""
        self.virsh("destroy", name, driver=driver)

    def start_network(self, xml: str, name: str) -> None:
        """Define and start a libvirt network."""
        self.virsh("net-define", "/dev/stdin", input=xml)
        self.virsh("net-start", name)

    @property
    def pid(self) -> int:
        """The node's first process, as the machine sees it."""
        return self._pid


def running_as_root() -> bool:
    """Whether the lab can be built at all by this process."""
    return os.geteuid() == 0

"""A QEMU process that emulates a machine, and the line to the lab's agent inside."""

import base64
import io
import json
import shlex
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

PATIENCE_FOR_BOOT = 900.0
#: xl kills a vif script 40 s after its start, and nobody can change that limit; other programs have
#: limits too. On a busy machine, what runs under emulation would not end in time.
_NICE = -15
_NO_LUXURY = (
    *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"),
    *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port"),
)


class EmulatorError(Exception):
    """QEMU did not start, or the agent does not answer; the text has what it said."""


class CommandError(Exception):
    """A command inside failed; the text has what it said."""


class Machine:
    """QEMU with these arguments, until the end of `until_end`.

    `inside` is the start of a command line that runs QEMU somewhere (a network namespace). `folder`
    is for the machine's sockets and its console.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        until_end: ExitStack,
        folder: Path,
        *,
        inside: Sequence[str] = (),
    ) -> None:
        self.console, self._monitor, port = (folder / n for n in ("console", "monitor", "port"))
        self._until_end = until_end
        # A session of its own: Ctrl-C is for the test run alone. If that is killed, QEMU ends too.
        argv = [
            "setpriv", "--pdeathsig", "KILL", *inside, "nice", "-n", str(_NICE),
            "qemu-system-x86_64", *_NO_LUXURY, *arguments, "-serial", f"file:{self.console}",
            "-chardev", f"socket,id=port,path={port},server=on,wait=off",
            "-qmp", f"unix:{self._monitor},server=on,wait=off",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            argv, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        until_end.callback(_end, self.process)
        _hurry(self.process.pid)
        self._port = self._connect(port)
        self._lines = until_end.enter_context(self._port.makefile("r", encoding="utf-8"))

    def _connect(self, path: Path) -> socket.socket:
        """Connect to a socket that QEMU makes when it starts. Raises EmulatorError."""
        made = self._until_end.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        deadline = time.monotonic() + PATIENCE_FOR_BOOT
        while not _connected(made, path):
            if self.process.poll() is not None or time.monotonic() > deadline:
                assert self.process.stderr is not None
                raise EmulatorError(f"qemu: {self.process.stderr.read().decode().strip()}")
            time.sleep(0.02)
        return made

    # -- the machine itself ------------------------------------------------------------------

    def save(self, memory: Path) -> None:
        """Save the machine's state into a file, and end it. Raises EmulatorError."""
        with ExitStack() as until_saved:
            line = until_saved.enter_context(self._connect(self._monitor).makefile("rw"))
            monitor = Monitor(line)
            monitor.order("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
            monitor.order("migrate", uri=f"exec:cat >{shlex.quote(str(memory))}")
            deadline = time.monotonic() + PATIENCE_FOR_BOOT
            while (state := monitor.order("query-migrate"))["status"] != "completed":
                if state["status"] in {"failed", "cancelled"} or time.monotonic() > deadline:
                    raise EmulatorError(f"qemu: the state was not saved: {state}")
                time.sleep(0.1)
            monitor.order("quit")
        self.process.wait(PATIENCE_FOR_BOOT)

    def set_clock(self) -> None:
        """Set the clock inside: it stood still while the machine was saved."""
        self.run(["date", "--set", f"@{time.time():.3f}"])

    # -- its agent ---------------------------------------------------------------------------

    def wait_until_ready(self) -> None:
        """Wait for the first line of an agent that starts; what another agent sent is ignored."""
        while self._receive(PATIENCE_FOR_BOOT) != {"ready": True}:
            pass

    def run(
        self,
        argv: Sequence[str],
        *,
        given: str = "",
        check: bool = True,
        timeout: float = 600.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end. Raises CommandError when it fails (and `check`)."""
        done = self.call("run", argv=list(argv), standard_input=given, seconds=timeout)
        result = subprocess.CompletedProcess(argv, done["code"], done["stdout"], done["stderr"])
        if check and result.returncode != 0:
            said = f"{result.stdout}{result.stderr}".strip()
            raise CommandError(f"{shlex.join(argv)}: {result.returncode}: {said}")
        return result

    def unpack(self, folder: Path) -> None:
        """Write the files of a folder below the root inside."""
        children = [(child, child.name) for child in sorted(folder.iterdir())]
        self.call("unpack", archive=_packed(children))

    def copy(self, file: Path, path: str) -> None:
        """Write a file inside, with the content of one outside."""
        self.call("unpack", archive=_packed([(file, path)]))

    def call(self, what: str, **arguments: Any) -> Any:
        """The agent's answer to a request. Raises EmulatorError and CommandError."""
        self.send(what, **arguments)
        answer = self._receive(arguments.get("seconds", 60.0) + 60.0)
        if "error" in answer:
            raise CommandError(answer["error"])
        return answer["result"]

    def send(self, what: str, **arguments: Any) -> None:
        """Send the agent a request, and do not wait for its answer."""
        self._port.sendall(json.dumps({"do": what, **arguments}).encode() + b"\n")

    def _receive(self, seconds: float) -> dict[str, Any]:
        self._port.settimeout(seconds)
        try:
            line = self._lines.readline()
        except TimeoutError:
            line = ""
        if not line:
            said = self.console.read_text(errors="replace")[-3000:]
            raise EmulatorError(f"the machine does not answer any more; its console: {said}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Monitor:
    """QEMU's own line for orders, in its QMP format."""

    def __init__(self, line: Any) -> None:
        self._line = line
        json.loads(line.readline())  # the greeting
        self.order("qmp_capabilities")

    def order(self, command: str, **arguments: object) -> dict[str, Any]:
        """What QEMU returns; its events are ignored. Raises EmulatorError."""
        self._line.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._line.flush()
        while "event" in (answer := json.loads(self._line.readline())):
            pass
        if "error" in answer:
            raise EmulatorError(f"qemu: {command}: {answer['error']['desc']}")
        done: dict[str, Any] = answer["return"]
        return done


def disk(number: int, what: str) -> list[str]:
    """The arguments for a raw disk; `what` is QEMU's `file=...`."""
    drive = f"{what},format=raw,if=none,id=disk{number}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{number}"]


def _packed(contents: Iterable[tuple[Path, str]]) -> str:
    """Files and folders, with their names inside, as an archive in base64."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for path, name in contents:
            tar.add(path, name, filter=of_root)
    return base64.b64encode(packed.getvalue()).decode()


def of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return None if "__pycache__" in entry.name else entry


def _connected(client: socket.socket, path: Path) -> bool:
    """Connect to a socket if it listens: between bind() and listen(), its file refuses."""
    try:
        client.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def _hurry(pid: int) -> None:
    """Where the kernel groups processes by session, a nice value counts in the session only."""
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():
        group.write_text(str(_NICE))


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    if process.stderr is not None:
        process.stderr.close()

"""A mount namespace of a test's own: /run that is full or read-only, and a syslog to read."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.netns.guest import Finished, Guest
from tests.netns.node import CGW, Node

_LONGEST_CALL = 120.0
_LONGEST_MESSAGE = 65536

# A /dev with what Python opens, and with a log that leads to the test's own socket.
_DEVICES = """
mount -t tmpfs tmpfs /dev
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/urandom c 1 9
ln -s {log} /dev/log
# A journald of the machine would get the messages first.
if [ -d /run/systemd/journal ]; then mount -t tmpfs tmpfs /run/systemd/journal; fi
"""


class OwnMounts:
    """Calls of cgw in a mount namespace that ends with the test."""

    def __init__(self, node: Node, holder: int, log: socket.socket) -> None:
        self._node = node
        self._enter = ("nsenter", f"--mount=/proc/{holder}/ns/mnt", "--")
        self._log = log

    def enter_command(self) -> tuple[str, ...]:
        """The start of a command line that runs the rest of it with these mounts."""
        return self._enter

    def run(self, script: str) -> None:
        """Carry out a shell script in it: mount, fill, remove. Raises CalledProcessError."""
        subprocess.run([*self._enter, "sh", "-e", "-c", script], check=True, capture_output=True)

    def make_runtime_small(self) -> None:
        """Give the node's runtime directory a file system of its own, of 256 KiB."""
        runtime = self._node.runtime
        runtime.mkdir(mode=0o700, exist_ok=True)
        self.run(f"mount -t tmpfs -o size=256k,mode=700 tmpfs {runtime}")

    def fill_runtime(self) -> None:
        """Leave no byte of it free."""
        full = "No space left on device"
        self.run(f"cat /dev/zero 2>&1 >> {self._node.runtime}/filler | grep '{full}'")

    def empty_runtime(self) -> None:
        """Free what `fill_runtime` took."""
        self.run(f"rm {self._node.runtime}/filler")

    def make_runtime_read_only(self) -> None:
        """Let nobody write to the node's runtime directory."""
        runtime = self._node.runtime
        self.run(f"mount --bind {runtime} {runtime}; mount -o remount,bind,ro {runtime}")

    def make_runtime_writable(self) -> None:
        """Undo `make_runtime_read_only`."""
        self.run(f"umount {self._node.runtime}")

    def hook(
        self, guest: Guest, operation: str, reason: str = "-", *, xml: str | None = None
    ) -> Finished:
        """One hook call. Whatever happens, nothing may come on stdout."""
        program = (*self._enter, str(CGW))
        process = self._node.start_hook_by(program, guest.name, operation, reason)
        given = (guest.xml if xml is None else xml).encode()
        stdout, stderr = process.communicate(given, timeout=_LONGEST_CALL)
        assert stdout == b""
        return Finished(process.returncode, stderr.decode().strip())

    def cgw(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run cgw as a person does, whatever its exit code."""
        return subprocess.run(
            [*self._node.namespace.enter_command(), *self._enter, str(CGW), *arguments],
            env=self._node.environment(), cwd="/", text=True, capture_output=True, check=False,
            timeout=_LONGEST_CALL,
        )  # fmt: skip

    def syslog(self) -> str:
        """What the calls wrote to syslog since this was last asked, a message to a line."""
        lines = []
        with suppress(BlockingIOError):
            while True:
                lines.append(self._log.recv(_LONGEST_MESSAGE).decode().rstrip("\n\0"))
        return "\n".join(lines)


@contextmanager
def own_mounts(node: Node) -> Iterator[OwnMounts]:
    """A mount namespace for calls of cgw on this node."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo made; exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    path = node.folder / "log"
    with holder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(path))
        log.setblocking(False)
        assert holder.stdout
        assert holder.stdout.readline() == "made\n"
        try:
            made = OwnMounts(node, holder.pid, log)
            made.run(_DEVICES.format(log=path))
            yield made
        finally:
            holder.communicate()  # it ends where its stdin ends
            path.unlink()

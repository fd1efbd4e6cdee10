"""Python programs in network namespaces, without the cost of a new interpreter for each.

`start` forks them from a process that has their modules loaded (`tests.lab.fork_server`): one for
each Python and set of modules, started at first use, which ends with this process.
"""

import atexit
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO

from tests.lab.namespace import Namespace

CHECKOUT = Path(__file__).parent.parent.parent
_SERVER = Path(__file__).parent / "fork_server.py"
_CHUNK = 65536
_LOCK = threading.Lock()
_SERVERS: list[tuple["subprocess.Popen[bytes]", socket.socket]] = []


class Forked:
    """A program that runs, with pipes for its input and both outputs; used as a `Popen`."""

    def __init__(self, stdin: int, stdout: int, stderr: int, report: int) -> None:
        self.stdin: BinaryIO = os.fdopen(stdin, "wb", buffering=0)
        self.stdout: BinaryIO = os.fdopen(stdout, "rb")
        self.stderr: BinaryIO = os.fdopen(stderr, "rb")
        self._report = os.fdopen(report, "rb")
        self.pid = int(self._report.readline())
        self.returncode: int | None = None

    def wait(self) -> int:
        """Wait for its end; its exit code, or less a signal's number."""
        if self.returncode is None:
            self.returncode = int(self._report.readline())
        return self.returncode

    def communicate(
        self, given: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes, bytes]:
        """Send `given` and the end of the input, and read both outputs to the program's end.

        Raises TimeoutError, once it is killed, when it takes longer than `timeout` seconds.
        """
        outputs: dict[BinaryIO, bytearray] = {self.stdout: bytearray(), self.stderr: bytearray()}
        for _ in self._moments(given or b"", outputs, timeout):
            pass
        self.wait()
        self.close()
        return bytes(outputs[self.stdout]), bytes(outputs[self.stderr])

    def _moments(
        self, given: bytes, outputs: Mapping[BinaryIO, bytearray], timeout: float | None
    ) -> Iterator[None]:
        deadline = None if timeout is None else time.monotonic() + timeout
        left = memoryview(given)
        os.set_blocking(self.stdin.fileno(), False)
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.stdin, selectors.EVENT_WRITE)
            for output in outputs:
                waiting.register(output, selectors.EVENT_READ)
            while waiting.get_map():
                remaining = None if deadline is None else deadline - time.monotonic()
                ready = waiting.select(remaining)
                if not ready:
                    self.send_signal(signal.SIGKILL)
                    raise TimeoutError(f"process {self.pid} takes over {timeout:g} s")
                for key, _ in ready:
                    if key.fileobj is self.stdin:
                        left = self._feed(left)
                        is_over = not left
                    else:
                        part = os.read(key.fd, _CHUNK)
                        outputs[key.fileobj] += part  # type: ignore[index]
                        is_over = not part
                    if is_over:
                        waiting.unregister(key.fileobj)
                        if key.fileobj is self.stdin:
                            self.stdin.close()
                yield

    def _feed(self, left: memoryview) -> memoryview:
        """Write what the pipe takes; what is left, nothing where the reader is gone."""
        try:
            return left[os.write(self.stdin.fileno(), left[:_CHUNK]) :] if left else left
        except BrokenPipeError:
            return left[:0]

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the pipes."""
        for stream in (self.stdin, self.stdout, self.stderr, self._report):
            stream.close()


def start(  # noqa: PLR0913 - what a process is made of
    network: Namespace,
    program: str,
    arguments: Sequence[str],
    *,
    python: Path,
    modules: Sequence[str],
    environment: Mapping[str, str],
    folder: str = "/",
    code: str = "",
) -> Forked:
    """Start `program` ("module:function") inside a network namespace.

    `arguments` are its sys.argv, `modules` are loaded beforehand ("package.*": all that is in it).
    With `code`, that is run instead.
    """
    ours, theirs = _pipes()
    message = {
        "network": str(network.path), "program": program, "arguments": list(arguments),
        "environment": dict(environment), "folder": folder, "code": code,
    }  # fmt: skip
    control = _server(python, tuple(modules))
    try:
        socket.send_fds(control, [json.dumps(message).encode()], theirs)
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    return Forked(*ours)


def _pipes() -> tuple[list[int], list[int]]:
    """Our ends and theirs, of: stdin, stdout, stderr, and the report of how it ended."""
    (their_input, our_input), *outputs = (os.pipe() for _ in range(4))
    return [our_input, *(read for read, _ in outputs)], [their_input, *(end for _, end in outputs)]


@cache
def _start_server(python: Path, modules: tuple[str, ...]) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # It ends when our end of the socket closes. A session of its own: the Ctrl-C of a terminal
        # is for the test run. As libvirt's own environment: Python takes its encoding from there.
        process = subprocess.Popen(
            [str(python), "-I", str(_SERVER), str(CHECKOUT), *modules], stdin=theirs.fileno(),
            start_new_session=True, env={"LC_ALL": "C", "HOME": "/"}, cwd="/",
        )  # fmt: skip
    _SERVERS.append((process, ours))
    return ours


@atexit.register
def _end_servers() -> None:
    for process, control in _SERVERS:
        control.close()
        process.wait()


def _server(python: Path, modules: tuple[str, ...]) -> socket.socket:
    with _LOCK:
        return _start_server(python, modules)

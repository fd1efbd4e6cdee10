"""Network namespaces of the lab, and work done inside them from this process."""

import ctypes
import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

PREFIX = "cgw"
NAMESPACES_FOLDER = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
#: Seconds until the kernel has added the routes of new addresses.
_ROUTE_LIMIT = 60.0
_veth_indexes = itertools.count(1000)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Namespace:
    """A named network namespace."""

    name: str

    @property
    def path(self) -> Path:
        """The file that represents the namespace."""
        return NAMESPACES_FOLDER / self.name

    def ip(self, commands: str) -> None:
        """Run lines of `ip` commands (without the word ip). Raises CalledProcessError."""
        subprocess.run(
            ["ip", "-n", self.name, "-batch", "-"],
            input=commands, text=True, check=True, capture_output=True,
        )  # fmt: skip
        if "nodad" in commands:
            self._wait_for_ipv6_addresses()

    def _wait_for_ipv6_addresses(self) -> None:
        """Wait until the node's own IPv6 addresses are its own for the kernel's routes, too.

        The kernel adds the route of a new address in a worker, also where it checks for no
        duplicate ("nodad"): on a busy machine that may be after `ip` has ended.
        """
        deadline = time.monotonic() + _ROUTE_LIMIT
        while self._ipv6_addresses() - self._local_ipv6_routes():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: an IPv6 address of it has no route")
            time.sleep(0.005)

    def _ipv6_addresses(self) -> set[tuple[str, str]]:
        """Each address with "nodad" on a device that is up, with the device."""
        devices = json.loads(self.run(["ip", "-6", "-json", "address", "show", "up"]).stdout)
        return {
            (address["local"], device["ifname"])
            for device in devices
            for address in device.get("addr_info", ())
            if "nodad" in address
        }

    def _local_ipv6_routes(self) -> set[tuple[str, str]]:
        routes = json.loads(
            self.run(["ip", "-6", "-json", "route", "show", "table", "local"]).stdout
        )
        return {(route["dst"], route["dev"]) for route in routes}

    def run(self, argv: Iterable[str], **options: object) -> subprocess.CompletedProcess[str]:
        """Run a program of the machine inside it."""
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [*self.enter_command(), *argv], text=True, check=True, capture_output=True, **options
        )

    def enter_command(self) -> list[str]:
        """The start of a command line that runs the rest of it inside this namespace."""
        return ["nsenter", f"--net={self.path}", "--"]

    def sysctl(self, values: Mapping[str, str]) -> None:
        """Set network sysctls; the names have slashes ("net/ipv4/ip_forward")."""

        def write() -> None:
            for name, value in values.items():
                Path("/proc/sys", name).write_text(value)

        self.call(write)

    def call(self, function: Callable[[], Result]) -> Result:
        """Call `function` in a short-lived thread inside the namespace, and return its result.

        A socket stays in the namespace where it was made, even if another thread uses it later.
        """
        results: list[Result] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                self._enter_this_thread()
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                errors.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put this thread inside for the block, and all threads that it starts there."""
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._enter_this_thread()
            try:
                yield
            finally:
                _set_namespace(outside, "the namespace outside")
        finally:
            os.close(outside)

    def _enter_this_thread(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set_namespace(descriptor, str(self.path))
        finally:
            os.close(descriptor)


def _set_namespace(descriptor: int, name: str) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


@contextmanager
def namespace(label: str) -> Iterator[Namespace]:
    """A new network namespace, `cgw-PID-label`, with its loopback up; removed at the end."""
    made = Namespace(f"{PREFIX}-{os.getpid()}-{label}")
    if made.path.exists():  # a killed run has left it, whose process had the number of this one
        subprocess.run(["ip", "netns", "delete", made.name], check=True, capture_output=True)
    try:  # a Ctrl-C may come once it is made, before `ip` has said so
        subprocess.run(["ip", "netns", "add", made.name], check=True, capture_output=True)
        made.ip("link set lo up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "delete", made.name], check=False, capture_output=True)


def destroy_namespace(made: Namespace) -> None:
    """Kill all processes of a namespace, and remove it with its devices."""
    pids = subprocess.run(
        ["ip", "netns", "pids", made.name], check=True, capture_output=True, text=True
    ).stdout.split()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", made.name], check=True, capture_output=True)


def veth(left: Namespace, left_device: str, right: Namespace, right_device: str) -> None:
    """Join two namespaces by a pair of devices, both up."""
    # Two ends with the same index, each in its namespace, would look like one device that is its
    # own peer: the kernel then takes up to a second to see the link (net/core/link_watch.c).
    index = next(_veth_indexes)
    left.ip(
        f"link add {left_device} index {index} type veth"
        f" peer name {right_device} netns {right.name}\n"
        f"link set {left_device} up\n"
    )
    right.ip(f"link set {right_device} up\n")


def owner_is_gone(name: str) -> bool:
    """Whether `name` is one of the lab's (`cgw-PID-label`), of a process that no longer runs."""
    match = re.fullmatch(rf"{PREFIX}-(\d+)-.+", name)
    return bool(match) and not Path("/proc", match[1] if match else "self").exists()


def sweep_namespaces() -> None:
    """Remove the namespaces that a killed run left behind."""
    if NAMESPACES_FOLDER.is_dir():
        for path in NAMESPACES_FOLDER.iterdir():
            if owner_is_gone(path.name):
                subprocess.run(["ip", "netns", "delete", path.name], check=False)

"""What one hook call costs, against a bare ``python3 -I -c pass`` in the same run.

    sudo make bench

Measures what ``make install`` puts on a host, and calls it as the hook script does, with the
interpreter of the bare case. Runs in a network namespace and a runtime directory of its own. The
cases take turns in every round, so that a busy machine slows all of them alike; each figure is the
median of its rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import netns

from benchmarks.turns import print_ratios, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHECKOUT = Path(__file__).parent.parent
_SCRIPT = str(_CHECKOUT / "hooks/qemu.d/50-cgw")
_INTERPRETER = "/usr/bin/python3"
#: A tmpfs, as /run is on a host. On ext4, replacing a file takes 4 ms.
_TMPFS = "/dev/shm"  # noqa: S108
_FEW, _MANY = 10, 10_000
#: One guest may ask for 1,024 ranges.
_EACH = 1_000
_PORTS = 5
#: The link where the guests live.
_LINK = """\
link add guestbr0 type bridge
link set guestbr0 up
address add 10.5.5.254/24 dev guestbr0
"""


def installed(stack: ExitStack) -> str:
    """Install cgw in a folder of its own; return the path of its command."""
    prefix = stack.enter_context(tempfile.TemporaryDirectory(prefix="cgw-bench-"))
    install = ["make", "--silent", "-C", str(_CHECKOUT), "install", f"PREFIX={prefix}"]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    return f"{prefix}/bin/cgw"


class Node:
    """A network namespace with a runtime directory, where other guests publish already."""

    def __init__(self, stack: ExitStack, cgw: str, published: int) -> None:
        self.directory = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="cgw-bench-", dir=_TMPFS)
        )
        self.namespace = f"cgw-bench-{os.getpid()}-{published}"
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        stack.callback(subprocess.run, ["ip", "netns", "delete", self.namespace], check=False)
        subprocess.run(
            ["ip", "-n", self.namespace, "-batch", "-"], input=_LINK, text=True, check=True
        )
        self.cgw = cgw
        self.environment = {
            "HOME": "/root",
            "LC_ALL": "C",
            "PATH": f"{Path(cgw).parent}:{os.environ['PATH']}",
            "CGW_RUNTIME_DIR": f"{self.directory}/run",
            "CGW_CONFIG": f"{self.directory}/cgw.toml",
        }
        for first in range(0, published, _EACH):
            self.hook(
                "started",
                annotated("others", 900 + first, min(_EACH, published - first), 20_000 + first),
            )

    def hook(self, operation: str, xml: bytes) -> float:
        """Call ``cgw hook`` as the hook script does; seconds."""
        argv = [_INTERPRETER, "-I", self.cgw, "hook", "qemu", "web1", operation, "begin", "-"]
        return self.call(argv, xml)

    def call(self, argv: list[str], stdin: bytes) -> float:
        """Run one program in the namespace; seconds from fork to exit."""
        netns.pushns(self.namespace)
        try:
            started = time.perf_counter()
            subprocess.run(argv, input=stdin, env=self.environment, check=True)
            return time.perf_counter() - started
        finally:
            netns.popns()


def annotated(name: str, number: int, ports: int, first_port: int, protocol: str = "tcp") -> bytes:
    """Domain XML of a guest that publishes so many ports, as large as libvirt's."""
    ranges = "".join(
        f'<cgw:range start="{port}" to="{port}"/>' for port in range(first_port, first_port + ports)
    )
    publish = (
        f'<cgw:publish xmlns:cgw="urn:cgw-hooks:1" address="10.5.5.{number % 200 + 1}">'
        f'<cgw:portForward proto="{protocol}">{ranges}</cgw:portForward></cgw:publish>'
    )
    return domain(name, number, publish)


def domain(name: str, number: int, metadata: str) -> bytes:
    """Domain XML with 8 kB of other metadata."""
    device = '<disk type="file" device="disk"><target dev="vda" bus="virtio"/></disk>'
    return (
        f'<domain type="qemu"><name>{name}</name>'
        f"<uuid>11111111-1111-4111-8111-{number:012d}</uuid><metadata>{metadata}</metadata>"
        f"<devices>{device * 110}</devices></domain>"
    ).encode()


def cases(few: Node, many: Node) -> Iterator[tuple[str, Callable[[], float]]]:
    """Name and action of each case; an action must leave its node unchanged."""
    plain, five = domain("plain", 1, ""), annotated("web1", 2, _PORTS, first_port=8000)
    udp = annotated("web1", 2, _PORTS, first_port=8000, protocol="udp")

    def started(node: Node, xml: bytes) -> float:
        node.hook("prepare", xml)
        seconds = node.hook("started", xml)
        node.hook("stopped", xml)
        node.hook("release", xml)
        return seconds

    def measured(operation: str) -> Callable[[], float]:
        def action() -> float:
            seconds = 0.0
            for each in ("prepare", "started", "stopped", "release"):
                spent = few.hook(each, five)
                seconds = spent if each == operation else seconds
            return seconds

        return action

    yield "python3 -I -c pass", lambda: few.call([_INTERPRETER, "-I", "-c", "pass"], b"")
    yield (
        "guest without annotation: script",
        lambda: few.call([_SCRIPT, "plain", "started", "begin", "-"], plain),
    )
    yield "guest without annotation: cgw hook", lambda: few.hook("started", plain)
    yield f"prepare, {_PORTS} ports", measured("prepare")
    yield f"started, {_PORTS} ports", lambda: started(few, five)
    yield f"started, {_PORTS} UDP ports", lambda: started(few, udp)
    yield f"stopped, {_PORTS} ports", measured("stopped")
    yield f"release, {_PORTS} ports", measured("release")
    yield f"started, {_PORTS} ports, {_MANY:,} others published", lambda: started(many, five)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What one hook call costs.")
    parser.add_argument("--rounds", type=int, default=40, help="measurements of each case")
    rounds = parser.parse_args().rounds
    with ExitStack() as stack:
        cgw = installed(stack)
        few, many = Node(stack, cgw, _FEW), Node(stack, cgw, _MANY)
        times = take_turns(dict(cases(few, many)), rounds, warm_up=2)
    started = statistics.median(times[f"started, {_PORTS} ports"])
    crowded = statistics.median(times[f"started, {_PORTS} ports, {_MANY:,} others published"])
    print_ratios(
        "CASE",
        times,
        f"started at {_MANY:,} published ports against {_FEW}: {crowded / started:.2f}",
        f"{rounds} rounds; ratios to a bare interpreter in the same run.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

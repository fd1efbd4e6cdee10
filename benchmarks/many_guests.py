"""What ``cgw status`` and ``cgw sync`` cost on a node with very many guests.

    sudo make venv && sudo .venv/bin/python -m benchmarks.many_guests

Runs in a network namespace and a runtime directory of its own. libvirt is libvirt's own test
driver, inside the process: to read the file that describes all guests is in these figures, and
what a daemon would add instead, one exchange over a socket for each guest, is not. A client of
libvirt that does nothing but get the definitions is measured as well: what cgw itself takes is the
difference. Hooks of one guest are called beside each sync, without a pause. The node's lock is
tried every millisecond: the longest time that it was held says how long a hook may have to wait.

A resident process that has read all records heals a flush of the ruleset from them: it asks no
hypervisor.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import netns

from benchmarks.turns import print_ratios, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHECKOUT = Path(__file__).parent.parent
_PYTHON = str(_CHECKOUT / ".venv/bin/python")
_PORTS = 3
#: A tmpfs, as /run is.
_RUN = "/dev/shm"  # noqa: S108
#: Each guest's ports where a flush is healed.
_HEALED_PORTS = 10
_FIRST_PORT, _FIRST_REMOTE_PORT = 1024, 30_000
#: cgw, with libvirt's test driver in the place of its QEMU driver.
_LAUNCHER = """\
import sys
sys.path.insert(0, "{checkout}")
sys.argv[0] = "cgw"
from cgw_hooks.host import libvirt_api
libvirt_api.URIS["qemu"] = "test://{guests}"
from cgw_hooks.commands.cli import main
sys.exit(main())
"""
#: Prints the processor time, in seconds, that healing a flush takes.
_HEALER = """\
import sys, time
sys.path.insert(0, "{checkout}")
from cgw_hooks.commands.this_node import publisher
from cgw_hooks.node.reconcile import sync
node = publisher()
assert not sync(node, drivers=()).repaired
for _ in range({rounds}):
    node.nft.apply("flush ruleset")
    before = time.process_time()
    assert sync(node, drivers=()).repaired
    print(time.process_time() - before)
"""
#: Gets all definitions, as cgw does, and does nothing with them.
_CLIENT = """\
import libvirt
connection = libvirt.openReadOnly("test://{guests}")
for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
    domain.name(), domain.XMLDesc(0).encode()
connection.close()
"""
_NETWORK = """\
link set lo up
link add guestbr0 type bridge
link set guestbr0 up
address add 10.5.0.1/16 dev guestbr0
"""
_CONFIG = """\
[[guest-network]]
bridge = "guestbr0"
subnet = "10.5.0.0/16"
node-address = "10.5.0.1"
gateway-address = "10.5.255.254"

"""


class Node:
    """A node with so many guests of its own, and so many that other nodes run."""

    def __init__(
        self, stack: ExitStack, guests: int, remote_guests: int, ports: int = _PORTS
    ) -> None:
        folder = tempfile.TemporaryDirectory(prefix="cgw-bench-", dir=_RUN)
        self.folder = Path(stack.enter_context(folder))
        self.namespace = f"cgw-{os.getpid()}-{guests}x{remote_guests}x{ports}"
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        stack.callback(subprocess.run, ["ip", "netns", "delete", self.namespace], check=False)
        subprocess.run(
            ["ip", "-n", self.namespace, "-batch", "-"], input=_NETWORK, text=True, check=True
        )
        self._write("cgw.toml", _CONFIG + "".join(map(_remote_guest, range(remote_guests))))
        domains = "".join(_domain(n, _FIRST_PORT + n * ports, ports) for n in range(guests))
        self._write("guests.xml", f"<node>{domains}</node>")
        self._write("cgw", _LAUNCHER.format(checkout=_CHECKOUT, guests=self.folder / "guests.xml"))
        self.runtime = self.folder / "run"
        self.environment = {
            "HOME": "/root",
            "LC_ALL": "C",
            "PATH": os.environ["PATH"],
            "CGW_RUNTIME_DIR": str(self.runtime),
            "CGW_CONFIG": str(self.folder / "cgw.toml"),
        }
        self.inside(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
        self.cgw("sync")

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)

    def inside(self, act: Callable[[], object]) -> None:
        """Act in the node's namespace."""
        netns.pushns(self.namespace)
        try:
            act()
        finally:
            netns.popns()

    def cgw(self, *arguments: str, given: str = "") -> float:
        """Run cgw on the node; seconds from fork to exit. It must find nothing wrong."""
        started = time.perf_counter()
        self._run(str(self.folder / "cgw"), *arguments, given=given)
        return time.perf_counter() - started

    def healing_times(self, rounds: int) -> list[float]:
        """Seconds of processor time that a resident process takes to heal a flush."""
        code = _HEALER.format(checkout=_CHECKOUT, rounds=rounds)
        return [float(line) for line in self._run("-c", code).split()]

    def _run(self, *arguments: str, given: str = "") -> str:
        program = ["nsenter", f"--net=/run/netns/{self.namespace}", _PYTHON, "-I"]
        done = subprocess.run(
            [*program, *arguments], input=given, env=self.environment, check=True,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return done.stdout

    def processor_time(self, *arguments: str) -> float:
        """Run cgw on the node; seconds of processor time, which a busy machine changes little."""
        return _processor_time(lambda: self.cgw(*arguments))

    def client_time(self) -> float:
        """Seconds of processor time of a client of libvirt that only gets all definitions."""
        code = _CLIENT.format(guests=self.folder / "guests.xml")
        return _processor_time(lambda: self._run("-c", code))

    def lose_everything(self) -> None:
        """Remove ruleset and records, as a reload of nftables and a full /run would."""
        subprocess.run(["ip", "netns", "exec", self.namespace, "nft", "flush ruleset"], check=True)
        for folder in ("guests", "index"):
            shutil.rmtree(self.runtime / folder)

    def hook(self) -> float:
        """Let one more guest ask for ports; seconds of the call, which waits for the lock."""
        try:
            return self._hook("prepare")
        finally:
            self._hook("release")

    def _hook(self, operation: str) -> float:
        return self.cgw("hook", "qemu", "one-more", operation, "begin", "-", given=_ONE_MORE)

    @contextmanager
    def measuring_lock(self) -> Iterator[list[float]]:
        """The longest time that the lock was held, in seconds, once this has ended."""
        longest = [0.0]
        over = threading.Event()
        thread = threading.Thread(target=self._watch_lock, args=(longest, over))
        thread.start()
        try:
            yield longest
        finally:
            over.set()
            thread.join()

    def _watch_lock(self, longest: list[float], over: threading.Event) -> None:
        with open(self.runtime / "lock", "rb") as file:
            free = time.perf_counter()
            while not over.wait(0.001):
                now = time.perf_counter()
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    fcntl.flock(file, fcntl.LOCK_UN)
                except BlockingIOError:
                    longest[0] = max(longest[0], now - free)
                else:
                    free = now


def _processor_time(run: Callable[[], object]) -> float:
    """Seconds of processor time of the processes that this runs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _run_bare_interpreter() -> None:
    subprocess.run([_PYTHON, "-I", "-c", "pass"], check=True)


def _domain(number: int, first_port: int, ports: int = _PORTS) -> str:
    """A running guest's definition, as libvirt's test driver reads it."""
    ranges = "".join(f'<cgw:range start="{first_port + n}" to="{22 + n}"/>' for n in range(ports))
    return (
        f'<domain type="test"><name>web{number}</name>'
        f"<uuid>11111111-1111-4111-8111-{number:012d}</uuid><metadata>"
        f'<cgw:publish xmlns:cgw="urn:cgw-hooks:1" address="{_address(10, number)}">'
        f'<cgw:portForward proto="tcp">{ranges}</cgw:portForward></cgw:publish></metadata>'
        "<memory>1024</memory><vcpu>1</vcpu><os><type>hvm</type></os></domain>"
    )


def _remote_guest(number: int) -> str:
    first = _FIRST_REMOTE_PORT + number * _PORTS
    published = ", ".join(f'"{first + n}:{22 + n}"' for n in range(_PORTS))
    return (
        f'[[remote-guest]]\nname = "far{number}"\naddress = "{_address(100, number)}"\n'
        f"publish = [{published}]\n\n"
    )


def _address(third: int, number: int) -> str:
    return f"10.5.{third + number // 250}.{1 + number % 250}"


#: The guest whose hooks are called beside a sync.
_ONE_MORE = _domain(20_000, 65_000)


def _measure_syncs(node: Node, prepare: Callable[[], None], rounds: int) -> dict[str, list[float]]:
    """The syncs, the longest time that each held the lock, and the slowest hook beside it."""
    found: dict[str, list[float]] = {
        "sync": [], "lock held": [], "slowest hook call beside it": [],
    }  # fmt: skip
    for _ in range(rounds):
        prepare()
        with node.measuring_lock() as longest, _hooks_without_pause(node) as hooks:
            found["sync"].append(node.cgw("sync"))
        found["lock held"].append(longest[0])
        found["slowest hook call beside it"].append(max(hooks))
    return found


@contextmanager
def _hooks_without_pause(node: Node) -> Iterator[list[float]]:
    """Seconds of each hook call, one after the other until this has ended."""
    hooks: list[float] = []
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            hooks.append(node.hook())

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield hooks
    finally:
        over.set()
        thread.join()


def main() -> int:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description="What status and sync cost with many guests.")
    parser.add_argument("--rounds", type=int, default=10, help="measurements of each case")
    parser.add_argument("--guests", type=int, default=1000, help="guests that this node runs")
    parser.add_argument("--healing", action="store_true", help="only the healing of a flush")
    parser.add_argument("--remote-guests", type=int, default=5000, help="guests of other nodes")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        full = Node(stack, chosen.guests, 0, _HEALED_PORTS)
        bare = [_processor_time(_run_bare_interpreter) for _ in range(chosen.rounds)]
        healed = full.healing_times(chosen.rounds)
        ports = f"{chosen.guests * _HEALED_PORTS:,}"
        print_ratios(
            "A FLUSH, HEALED BY A RESIDENT PROCESS, PROCESSOR TIME",
            {"python3 -I -c pass": bare, f"{ports} ports of {chosen.guests:,} guests": healed},
        )
        if chosen.healing:
            return 0
        few = Node(stack, 1, 0)
        many = Node(stack, chosen.guests, 0)
        cluster = Node(stack, chosen.guests, chosen.remote_guests)
        local, all_of_them = f"{chosen.guests:,}", f"{chosen.guests:,} and {chosen.remote_guests:,}"
        cases = {
            "python3 -I -c pass": lambda: _processor_time(_run_bare_interpreter),
            f"only the definitions of {local} guests": many.client_time,
            "status, 1 guest": lambda: few.processor_time("status"),
            f"status, {local} guests": lambda: many.processor_time("status"),
            f"status --json, {local} guests": lambda: many.processor_time("status", "--json"),
            f"status, {all_of_them} of other nodes": lambda: cluster.processor_time("status"),
            "sync, 1 guest": lambda: few.processor_time("sync"),
            f"sync, {local} guests": lambda: many.processor_time("sync"),
            f"sync, {all_of_them} of other nodes": lambda: cluster.processor_time("sync"),
            f"prepare and release beside {local} guests": lambda: _processor_time(many.hook),
            f"prepare and release beside {all_of_them}": lambda: _processor_time(cluster.hook),
        }
        print_ratios("COMMAND, PROCESSOR TIME", take_turns(cases, chosen.rounds, warm_up=1))
        alone = {"hook call alone": [cluster.hook() for _ in range(chosen.rounds)]}
        steady = _measure_syncs(cluster, lambda: None, chosen.rounds)
        print_ratios(f"{all_of_them} OF OTHER NODES, NOTHING TO DO, ELAPSED", {**alone, **steady})
        lost = _measure_syncs(cluster, cluster.lose_everything, chosen.rounds)
        print_ratios(f"{all_of_them} OF OTHER NODES, EVERYTHING LOST, ELAPSED", {**alone, **lost})
    return 0


if __name__ == "__main__":
    sys.exit(main())

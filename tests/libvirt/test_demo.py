"""`make demo`: however it ends, the machine is as it was. What it prints is its own business."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.full import extended
from tests.libvirt.conftest import SUITES
from tests.libvirt.leftovers import children_of, is_there, leftovers_of, processes_marked
from tests.libvirt.waiting import eventually

pytestmark = pytest.mark.libvirt

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 600.0
INTERRUPTED = 130
MEMBERS = 3


class Demo:
    """A demo that runs: in a session of its own, as that of a terminal."""

    def __init__(self, suite: str) -> None:
        self._mark = f"CGW_DEMO={uuid4()}"
        name, _, value = self._mark.partition("=")
        self.said = ""
        self._members: set[str] = set()
        self.process = subprocess.Popen(
            # Tests that run in the background ignore SIGINT, and so would their children.
            ["env", "--default-signal=INT", sys.executable, "-m", "tests.lab.demo"],
            cwd=CHECKOUT, env={**os.environ, "SUITE": suite, name: value}, text=True,
            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def has_process(self, part: str) -> bool:
        """Whether a process of it has this in its command line."""
        return any(part in command for command in processes_marked(self._mark))

    def has_etcd(self) -> bool:
        """Whether three members of etcd have run; they are remembered.

        What starts one may be seen as well: it becomes that member, with another command line.
        """
        self._members |= {line for line in children_of(self.process.pid) if " etcd --name" in line}
        return len({line.partition(" ")[0] for line in self._members}) >= MEMBERS

    def leftovers(self) -> list[str]:
        """Its processes, namespaces, cgroups and mounts."""
        members = [line for line in self._members if is_there(line)]
        return processes_marked(self._mark) + members + leftovers_of(self.process.pid)

    def wait(self) -> int:
        """Wait for its end; its exit code."""
        self.said = self.process.communicate(timeout=PATIENCE)[0]
        return self.process.returncode


@contextmanager
def demo(suite: str) -> Iterator[Demo]:
    """A demo, after which the machine has to be as before."""
    before = machine()
    run = Demo(suite)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()
    assert run.leftovers() == []
    assert before == machine()


def machine() -> list[str]:
    """The machine's own devices, addresses, routes, rules and switches of packets."""
    commands = ("ip -oneline address", "ip route", "ip -6 route", "nft list ruleset",
                "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding")  # fmt: skip
    listings = [
        subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout
        for command in commands
    ]
    return [
        line for listing in listings for line in listing.splitlines() if "valid_lft" not in line
    ]


@pytest.mark.parametrize(
    "suite",
    [
        pytest.param("bookworm", marks=pytest.mark.extended),
        pytest.param("trixie", marks=pytest.mark.on_both_suites),
    ],
)
def test_a_demo_that_ran_to_its_end_leaves_nothing(suite: str) -> None:
    with demo(suite) as run:
        assert run.wait() == 0, run.said


LAST_MOMENT = "guests of its cluster run"
MOMENTS: dict[str, Callable[[Demo], bool]] = {
    "its host comes up": lambda run: run.has_process("tests.lab.host_init"),
    "its guest runs": lambda run: run.has_process("qemu-system-x86_64"),
    "its etcd runs": Demo.has_etcd,
    LAST_MOMENT: lambda run: run.has_etcd() and MOMENTS["its guest runs"](run),
}
EARLY_MOMENTS = [moment for moment in MOMENTS if moment != LAST_MOMENT]


@pytest.mark.parametrize("moment", [*map(extended, EARLY_MOMENTS), LAST_MOMENT])
@pytest.mark.parametrize("suite", SUITES)
def test_a_demo_that_was_interrupted_leaves_nothing(suite: str, moment: str) -> None:
    with demo(suite) as run:
        assert eventually(lambda: MOMENTS[moment](run), within=PATIENCE)
        assert leftovers_of(run.process.pid)
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.wait() == INTERRUPTED, run.said


def test_a_demo_that_cannot_be_shown_says_why() -> None:
    with demo("nosuchsuite") as run:
        assert run.wait() == 1
        # On a busy machine, a line about the slow build comes first.
        reason = "demo: mmdebstrap for nosuchsuite failed: "
        assert any(line.startswith(reason) for line in run.said.splitlines())

"""Nothing is left of a real etcd of the lab, however the run ends."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.lab.etcd import open_etcd, sweep
from tests.lab.forked import CHECKOUT
from tests.lab.namespace import NAMESPACES_FOLDER, PREFIX
from tests.libvirt.waiting import eventually

pytestmark = pytest.mark.registry

RUN = """
import signal
from tests.lab.etcd import open_etcd
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
with open_etcd("bookworm", 1):
    print("up", flush=True)
    input()
"""


def left_of(run: int) -> list[str]:
    """The namespaces, folders and member processes of a run with this process id."""
    name = f"{PREFIX}-{run}-etcd"
    networks = NAMESPACES_FOLDER.iterdir() if NAMESPACES_FOLDER.is_dir() else ()
    folders = Path(tempfile.gettempdir()).glob(f"{name}*")
    found = [path.name for path in (*networks, *folders) if path.name.startswith(name)]
    return [*found, *(f"process {pid}" for pid in _members_of(run))]


def _members_of(run: int) -> list[str]:
    """The processes whose log is in the folder of this run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            log = os.readlink(process / "fd/2")
        except OSError:  # it has ended meanwhile
            continue
        if f"/{PREFIX}-{run}-etcd" in log:
            found.append(process.name)
    return found


def test_nothing_is_left_after_the_block() -> None:
    before = left_of(os.getpid())
    with open_etcd("bookworm", 1):
        assert len(left_of(os.getpid())) == len(before) + 4  # two namespaces, folder, process
    assert before == left_of(os.getpid())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_nothing_is_left_of_a_run_that_is_interrupted(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=CHECKOUT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        assert "up\n" == run.stdout.readline()
        assert len(left_of(run.pid)) == 4
        run.send_signal(number)
        run.wait(300)
    if number == signal.SIGKILL:
        assert eventually(lambda: not _members_of(run.pid))
        sweep()
    assert [] == left_of(run.pid)

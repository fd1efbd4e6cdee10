"""The host of these tests: it cannot change the machine, and it ends with the run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.systemd.gateway import Gateway

pytestmark = pytest.mark.systemd

CHECKOUT = Path(__file__).parents[2]
#: CAP_SYS_MODULE, _RAWIO, _BOOT, _TIME, CAP_AUDIT_CONTROL, CAP_SYSLOG (linux/capability.h).
REACHING_OUT = (16, 17, 22, 25, 30, 34)
NETWORK = "/proc/sys/net"
BOOTS = """\
import time
from tests.lab.namespace import namespace
from tests.lab.systemd_host import SystemdHost
from tests.lab.systemd_root import systemd_root
with namespace("guard") as inside:
    with SystemdHost("guard", network=inside, root=systemd_root("bookworm")) as host:
        print(host.pid, flush=True)
        time.sleep(600)
"""


def test_no_program_of_the_host_may_change_the_machine(gateway: Gateway) -> None:
    """Only looked at, never tried: where the guard fails, the attempt would succeed."""
    status = "/proc/self/status /proc/1/status"
    lines = gateway.host.run(["sh", "-c", f"grep -h CapBnd {status}"]).stdout.splitlines()
    assert 2 == len(lines)
    for line in lines:
        capabilities = int(line.split()[1], base=16)
        assert [] == [number for number in REACHING_OUT if capabilities >> number & 1]
    mounts = gateway.host.run(["cat", "/proc/self/mounts"]).stdout.splitlines()
    options = {line.split()[1]: line.split()[3].split(",") for line in mounts}
    assert ["ro", "ro", "rw"] == [options[path][0] for path in ("/proc/sys", "/sys", NETWORK)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_the_run_however_that_ends(number: signal.Signals) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", BOOTS], cwd=CHECKOUT, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert "systemd" in Path(f"/proc/{pid}/cmdline").read_text()
        run.send_signal(number)
        run.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "systemd still runs"
        time.sleep(0.05)
    if number == signal.SIGINT:
        groups = subprocess.run(
            ["find", "/sys/fs/cgroup", "-maxdepth", "2", "-name", f"cgw-{run.pid}-*"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "" == groups.stdout
        assert not os.path.exists(f"/run/netns/cgw-{run.pid}-guard")

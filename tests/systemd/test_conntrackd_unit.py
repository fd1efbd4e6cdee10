"""cgw-conntrackd.service: `cgw node up` runs it, in its sandbox, in place of Debian's own."""

from collections.abc import Iterator

import pytest

from tests.lab.gateway_config import gateway_config, remote_node_table
from tests.lab.network import NodeAddresses
from tests.lab.systemd_host import SystemdHost
from tests.lab.systemd_root import replicating_root
from tests.libvirt.waiting import eventually
from tests.systemd.conftest import booted_host

pytestmark = pytest.mark.systemd

UNIT, OTHER_UNIT = "cgw-conntrackd.service", "conntrackd.service"
CONFIG = "/etc/cgw/cgw.toml"
REPLICATE = "[failover]\nreplicate = true\n"
TOML = gateway_config(NodeAddresses(1)) + remote_node_table(NodeAddresses(2))


@pytest.fixture(scope="module")
def host(suite: str) -> Iterator[SystemdHost]:
    """A gateway whose flows are replicated; no other node is there."""
    with booted_host(f"{suite}-replicating-", suite, replicating_root) as (made, _, _):
        made.install()
        made.write(CONFIG, TOML + REPLICATE)
        made.path(CONFIG).chmod(0o600)
        yield made


def pid(host: SystemdHost) -> int:
    """The process of the unit; 0: none."""
    return int(host.run(["systemctl", "show", "--value", "-p", "MainPID", UNIT]).stdout)


def answers(host: SystemdHost) -> bool:
    """Whether the daemon tells its statistics."""
    asked = host.run(["conntrackd", "-C", "/run/cgw/conntrackd.conf", "-s"], check=False)
    return asked.returncode == 0 and "cache internal" in asked.stdout


def problems(host: SystemdHost) -> str:
    """What status says of it."""
    lines = host.run(["cgw", "status"], check=False)
    return "\n".join(
        line for line in (lines.stdout + lines.stderr).splitlines() if "conntrackd" in line
    )


def test_up_runs_it_and_down_ends_it(host: SystemdHost) -> None:
    host.systemctl("start", OTHER_UNIT)
    host.systemctl("start", "cgw-node.service")
    assert host.is_active(UNIT)
    assert not host.is_active(OTHER_UNIT)
    assert answers(host)
    first = pid(host)
    host.systemctl("reload", "cgw-node.service")
    assert pid(host) == first  # its config is the same
    assert "no other node's conntrackd was heard" in problems(host)
    host.systemctl("stop", "cgw-node.service")
    assert not host.is_active(UNIT)
    assert not host.path("/run/cgw/conntrackd.conf").exists()


def test_another_config_restarts_it_and_without_one_it_ends(host: SystemdHost) -> None:
    host.systemctl("start", "cgw-node.service")
    first = pid(host)
    host.write(CONFIG, TOML + remote_node_table(NodeAddresses(3)) + REPLICATE)
    host.systemctl("reload", "cgw-node.service")
    assert pid(host) not in {0, first}
    host.write(CONFIG, TOML)
    host.systemctl("reload", "cgw-node.service")
    assert not host.is_active(UNIT)
    assert problems(host) == ""
    host.write(CONFIG, TOML + REPLICATE)
    host.systemctl("stop", "cgw-node.service")


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_one_that_was_killed_or_hangs_is_started_again(host: SystemdHost, signal: str) -> None:
    """The lock that it leaves does not hinder it; systemd's watchdog finds one that hangs."""
    host.systemctl("start", "cgw-node.service")
    first = pid(host)
    host.systemctl("kill", f"--signal={signal}", UNIT)
    assert eventually(lambda: pid(host) not in {0, first} and answers(host))
    host.systemctl("stop", "cgw-node.service")

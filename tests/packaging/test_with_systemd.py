"""The package on a host that runs: systemd, libvirtd, and a guest with a DHCP lease."""

import time
from collections.abc import Iterator

import pytest

from tests.netns.configs import NODE
from tests.packaging.built import Built
from tests.packaging.packages import CONFIG
from tests.packaging.systemd_package_host import SystemdPackageHost
from tests.systemd.agent_host import ANSWER, GUEST, PORT, UNIT
from tests.systemd.conftest import booted_host

pytestmark = pytest.mark.packaging

ECHO_PORT = 8007
CHOSEN = ("cgw-node.service", "cgw-sync.service")
GATEWAY_ADDRESS = "10.5.5.253"
GATEWAY = f"""\
[[guest-network]]
bridge = "guestbr0"
subnet = "10.5.5.0/24"
node-address = "10.5.5.252"
gateway-address = "{GATEWAY_ADDRESS}"
"""
ANY_CGW = ["find", "/etc", "/run/cgw", "/var/lib/cgw", "-name", "*cgw*"]


@pytest.fixture
def on(suite: str, built: Built) -> Iterator[SystemdPackageHost]:
    with booted_host(f"package-{suite}-", suite) as (host, outside, until_end):
        made = SystemdPackageHost(host, outside, until_end, built)
        made.set_up()
        yield made


def test_a_guest_that_runs_is_published_through_the_whole_life_of_the_package(
    on: SystemdPackageHost,
) -> None:
    """One test: the host and its guest take longer to start than all of this."""
    installs_and_publishes(on)
    upgrades_under_connections(on)
    is_called_by_libvirt_without_its_agent(on)
    upgrades_the_units_that_the_admin_chose(on)
    is_removed(on)
    is_purged(on)
    comes_back(on)


def installs_and_publishes(on: SystemdPackageHost) -> None:
    on.install_package()
    assert on.host.is_active(UNIT)
    assert on.is_enabled()
    others = (
        "cgw-sync.service", "cgw-node.service", "cgw-resync.service", "cgw-resync.path",
        "cgw-conntrackd.service",
    )  # fmt: skip
    assert [] == [unit for unit in others if on.is_enabled(unit)]
    on.publish(f"{PORT}:80")
    assert ANSWER == on.asks()


def upgrades_under_connections(on: SystemdPackageHost) -> None:
    on.publish(f"{ECHO_PORT}:7")
    agent = on.show("MainPID")
    with on.client.tcp_session(NODE[4], ECHO_PORT) as session, on.pulse() as pulse:
        assert "before" == session.exchange("before")
        begun = time.monotonic()
        on.upgrade(1)
        assert 0.0 == pulse.healed_after(begun), "a client was not answered"
        assert "after" == session.exchange("after")
    assert on.host.is_active(UNIT)
    assert agent != on.show("MainPID")


def is_called_by_libvirt_without_its_agent(on: SystemdPackageHost) -> None:
    """The hooks were installed while libvirtd ran: it looks for hooks only when told."""
    on.host.systemctl("stop", UNIT)
    on.virsh("destroy", GUEST)
    assert "refused" == on.asks()
    on.host.systemctl("start", UNIT)
    on.virsh("start", GUEST)
    on.wait_for_answer()


def upgrades_the_units_that_the_admin_chose(on: SystemdPackageHost) -> None:
    on.host.systemctl("disable", "--now", UNIT)
    on.host.write(CONFIG, GATEWAY)
    on.host.systemctl("enable", "--now", "cgw-node.service", "cgw-sync.service")
    starts = [on.show("ActiveEnterTimestampMonotonic", unit) for unit in CHOSEN]
    on.upgrade(2)
    assert starts == [on.show("ActiveEnterTimestampMonotonic", unit) for unit in CHOSEN]
    assert [True, True, False] == [on.host.is_active(unit) for unit in (*CHOSEN, UNIT)]
    assert not on.is_enabled()
    assert ANSWER == on.asks()


def is_removed(on: SystemdPackageHost) -> None:
    assert GATEWAY_ADDRESS in on.addresses()
    on.apt("remove", "cgw-hooks")
    assert not on.host.is_active(UNIT)
    assert "refused" == on.asks()
    assert [] == [unit for unit in CHOSEN if on.host.is_active(unit)]
    assert GATEWAY_ADDRESS not in on.addresses(), "cgw node down"
    assert "cgw" not in on.host.run(["nft", "list", "ruleset"]).stdout
    on.virsh("destroy", GUEST)
    on.virsh("start", GUEST)
    assert "running" == on.virsh("domstate", GUEST)


def is_purged(on: SystemdPackageHost) -> None:
    on.host.systemctl("daemon-reload")
    on.apt("purge", "cgw-hooks")
    assert "" == on.host.run(ANY_CGW, check=False).stdout
    helpers = on.host.run(["find", "/var/lib/systemd", "-name", "*cgw*"])
    assert "" == helpers.stdout
    assert "not-found" == on.show("LoadState")


def comes_back(on: SystemdPackageHost) -> None:
    on.install_package()
    on.wait_for_answer()

"""A host with a real libvirtd whose hook does not work: the doctor names the hook, and its cure.

The guest runs and its port is closed. The cure publishes it.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.full import extended
from tests.lab.lab import open_lab, sweep
from tests.libvirt.conftest import SUITES
from tests.libvirt.hypervisor import Hypervisor
from tests.netns.configs import FULL_NAT

pytestmark = pytest.mark.doctor

PORT = 2202
HOOK = "/etc/libvirt/hooks/qemu.d/50-cgw"
#: What is done to the host -> what the doctor must say of it.
FAULTS = {
    f"chmod 644 {HOOK}": "not executable",
    f"rm {HOOK}": "missing",
    f"sed -i \"s,^python='[^']*',python='/none/python3',\" {HOOK}": "/none/python3",
    f"sed -i \"s,cgw='[^']*',cgw='/none/cgw',\" {HOOK}": "/none/cgw",
}


@pytest.fixture(scope="module")
def hypervisor() -> Iterator[Hypervisor]:
    """A node without the agent."""
    sweep()
    with open_lab(SUITES[0]) as lab:
        yield Hypervisor(lab, FULL_NAT, watched=False)


@pytest.fixture
def host(hypervisor: Hypervisor) -> Iterator[Hypervisor]:
    """The same for one test: the hook works before and after."""
    yield hypervisor
    hypervisor.remove_guests()
    hypervisor.shell(f"rm -f {HOOK}; cgw install")
    hypervisor.node.restart_libvirtd()
    assert [each for each in faults(hypervisor) if each["check"] == "hooks"] == []


def faults(host: Hypervisor) -> list[dict[str, Any]]:
    """The faults that `cgw doctor --json` finds."""
    checks = json.loads(host.cgw("doctor", "--json", check=False).stdout)["checks"]
    return [each for each in checks if each["verdict"] == "fail"]


def assert_cured(host: Hypervisor, words: str) -> None:
    """Assert that a guest that has started is not published until the first cure was typed."""
    guest = host.guest("web1", f"{PORT}:22", octet=21)
    guest.start()
    assert host.is_closed(PORT)
    first = faults(host)[0]
    assert (first["check"], first["problem"]["code"]) == ("hooks", "hook"), first
    assert words in first["problem"]["message"]
    host.node.run(["sh", "-c", first["command"]])
    assert host.asks_until_answered(PORT).startswith("web1 saw ")
    assert faults(host) == []
    guest.destroy()
    assert host.is_closed(PORT)


@pytest.mark.parametrize(
    "fault", [command if place < 2 else extended(command) for place, command in enumerate(FAULTS)]
)
def test_a_hook_that_does_not_work(host: Hypervisor, fault: str) -> None:
    host.shell(fault)
    assert_cured(host, FAULTS[fault])


def test_a_libvirtd_that_was_not_reloaded_since_the_first_hook_came(host: Hypervisor) -> None:
    host.shell("cgw uninstall")
    host.node.restart_libvirtd()
    host.shell("sleep 2; cgw install")
    assert_cured(host, "libvirt looked for hooks before this one was there")


@pytest.mark.extended
def test_selinux_that_holds_the_hooks(host: Hypervisor) -> None:
    """Only what SELinux says, and the command that changes it, are the test's own."""
    host.shell(
        "busybox mount -t tmpfs tmpfs /sys/fs; mkdir -p /sys/fs/selinux/booleans; "
        "cd /sys/fs/selinux; echo 1 >enforce; echo 0 0 >booleans/virt_hooks_unconfined"
    )
    try:
        first = faults(host)[0]
        assert (first["check"], first["problem"]["code"]) == ("hooks", "hook")
        assert first["command"] == "setsebool -P virt_hooks_unconfined on"
        host.shell("echo 1 1 >/sys/fs/selinux/booleans/virt_hooks_unconfined")
        assert faults(host) == []
    finally:
        host.shell("busybox umount /sys/fs")

"""Every way in which libvirt starts and ends a guest: its ports open and close with it."""

from collections.abc import Callable

import pytest

from tests.full import extended
from tests.lab.client import DEFAULT_PATIENCE, PATIENCE_FOR_SILENCE
from tests.lab.host import HostError
from tests.lab.network import guest_address
from tests.libvirt.answers import ECHO_PORT, PUBLISHED, assert_closed, assert_open
from tests.libvirt.hypervisor import STARTED, STOPPED, Guest, Hypervisor
from tests.netns.configs import NODE, NODE_AMONG_GUESTS

pytestmark = pytest.mark.libvirt

DISK = "/var/lib/libvirt/web1.qcow2"
SAVED = "/var/lib/libvirt/web1.saved"


def autostarts(guest: Guest) -> None:
    guest.virsh("autostart")
    node = guest.host.node
    node.stop_libvirtd()
    # libvirt starts guests once after the host's boot, and keeps a note of that.
    node.run(["rm", "-f", "/run/libvirt/qemu/autostarted"])
    node.start_libvirtd()
    node.wait_for_state(guest.name, "running")


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(Guest.start, marks=pytest.mark.on_both_suites),
        Guest.create_transient,
        autostarts,
    ],
)
def test_ports_open_however_the_guest_starts(
    host: Hypervisor, start: Callable[[Guest], None]
) -> None:
    web = host.guest("web1", *PUBLISHED)
    before = host.traces()
    assert_closed(host)
    start(web)
    assert_open(host)
    assert STARTED == web.operations()
    web.destroy()
    assert STOPPED == web.operations()
    assert_closed(host)
    assert before == host.traces()


ENDS: dict[str, Callable[[Guest], object]] = {
    "shut down": lambda guest: guest.virsh("shutdown"),
    "powered off inside": lambda guest: guest.tell("poweroff"),
    "panicked": lambda guest: guest.tell("panic"),
    "killed": Guest.kill,
    "destroyed": Guest.destroy,
}


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(end, marks=[pytest.mark.on_both_suites] * (name == "shut down"), id=name)
        for name, end in ENDS.items()
    ],
)
def test_ports_close_however_the_guest_ends(
    host: Hypervisor, end: Callable[[Guest], object]
) -> None:
    web = host.guest("web1", *PUBLISHED)
    before = host.traces()
    web.start()
    assert_open(host)
    assert STARTED == web.operations()
    end(web)
    assert web.is_called("release")
    assert STOPPED == web.operations()
    assert_closed(host)
    assert before == host.traces()


def test_a_saved_guest_has_no_ports_until_it_is_restored(host: Hypervisor) -> None:
    web = host.guest("web1", *PUBLISHED)
    before = host.traces()
    web.start()
    assert_open(host)
    with host.client.tcp_session(NODE[4], ECHO_PORT) as session:
        assert session.exchange("before") == "before"
        web.virsh("save", SAVED)
        assert [*STARTED, *STOPPED] == web.operations()
        assert_closed(host)
        assert before == host.traces()
        host.node.virsh("restore", SAVED)
        assert ["restore", *STARTED] == web.operations()
        assert_open(host)
        assert session.exchange("after") == "after"
    web.destroy()
    assert before == host.traces()


def test_a_guest_with_a_managed_save_image_goes_on_with_its_ports(host: Hypervisor) -> None:
    web = host.guest("web1", *PUBLISHED)
    before = host.traces()
    web.start()
    assert_open(host)
    web.virsh("managedsave")
    assert_closed(host)
    assert before == host.traces()
    web.start()
    assert_open(host)
    assert [*STARTED, *STOPPED, "restore", *STARTED] == web.operations()


def test_ports_are_open_after_a_running_guest_is_reverted_to_a_snapshot(host: Hypervisor) -> None:
    host.node.run(["qemu-img", "create", "-q", "-f", "qcow2", DISK, "8M"])
    web = host.guest("web1", *PUBLISHED, disk=DISK)
    before = host.traces()
    web.start()
    assert_open(host)
    web.virsh("snapshot-create-as", "s1")
    assert STARTED == web.operations()
    assert_open(host)
    web.virsh("snapshot-revert", "s1")
    assert [*STOPPED, *STARTED] == web.operations()
    assert_open(host)
    web.destroy()
    assert before == host.traces()


@pytest.mark.parametrize("end", [extended("stop_libvirtd"), "kill_libvirtd"])
def test_ports_stay_open_while_libvirtd_is_down_and_after(host: Hypervisor, end: str) -> None:
    web = host.guest("web1", *PUBLISHED)
    before = host.traces()
    web.start()
    assert_open(host)
    published = host.traces()
    getattr(host.node, end)()
    assert_open(host)
    host.node.start_libvirtd()
    assert web.is_called("reconnect")
    assert [*STARTED, "reconnect"] == web.operations()
    assert_open(host)
    assert published == host.traces()
    web.destroy()
    assert before == host.traces()


def test_ports_of_a_guest_that_died_while_libvirtd_was_down_close_when_it_is_back(
    host: Hypervisor,
) -> None:
    web = host.guest("web1", *PUBLISHED)
    before = host.traces()
    web.start()
    assert_open(host)
    host.node.kill_libvirtd()
    web.kill()
    host.node.start_libvirtd()
    assert web.is_called("release")
    assert STARTED + STOPPED == web.operations()
    assert_closed(host)
    assert before == host.traces()


@pytest.mark.on_both_suites
def test_ports_of_a_container_open_and_close_with_it(host: Hypervisor) -> None:
    box = host.guest("box1", *PUBLISHED, driver="lxc")
    before = host.traces()
    box.start()
    assert_open(host, "box1")
    assert STARTED == box.operations()
    box.destroy()
    assert set(STOPPED) == set(box.operations())  # maybe twice: see test_lab
    assert_closed(host)
    assert before == host.traces()


def test_the_ip_of_an_interface_is_a_containers_address(host: Hypervisor) -> None:
    """That address libvirt gives it; of a QEMU guest it takes none, wherever the interface is."""
    own = {"octet": 240, "publish_address": None, "interface_ip": guest_address(240)}
    box = host.guest("box1", "8080:80", driver="lxc", **own)
    box.start()
    assert host.asks_until_answered(8080) == f"box1 saw {NODE_AMONG_GUESTS[4]}"
    box.destroy()
    assert host.is_closed(8080)
    with pytest.raises(HostError, match="not supported by QEMU"):
        host.guest("web1", "8080:80", **own)


@pytest.mark.on_both_suites
def test_only_connections_that_are_known_to_be_over_are_deleted(host: Hypervisor) -> None:
    web = host.guest("web1", *PUBLISHED)
    web.start()
    assert_open(host)
    with host.client.tcp_session(NODE[4], ECHO_PORT) as session:
        assert session.exchange("before") == "before"
        web.destroy()
        says_why = web.calls()[-1][-1] == "destroyed"
        assert says_why == (host.libvirt_version >= (10, 5))
        # The host itself resets what is translated no more; what is, goes to nobody.
        error = ConnectionResetError if says_why else TimeoutError
        patience = DEFAULT_PATIENCE if says_why else PATIENCE_FOR_SILENCE
        with pytest.raises(error):
            session.exchange("after", timeout=patience)

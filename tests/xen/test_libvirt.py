"""libvirt's Xen driver, whose hook publishes: what a packet meets after each thing it does.

Guest web1 was a plain xl guest once: its old file in /etc/xen still declares port 8080. That is
not for the vif script to publish, nor for `cgw sync`.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.lab.domain import guest_uuid
from tests.lab.xen.dom0 import Dom0
from tests.libvirt.hypervisor import STARTED, STOPPED
from tests.xen.host import WEB1, XenHost
from tests.xen.libvirt_guests import LibvirtGuests

pytestmark = pytest.mark.xen

OCTET = 201
OLD_FILE = 'name = "web1"\ncgw_publish = [ "8080:80" ]\n'
PUBLISHED = {"web1": ["123/udp", "2202/tcp"]}
ELEMENTS = ["tcp . 2202 : 10.5.5.201 . 22", "udp . 123 : 10.5.5.201 . 123"]


@pytest.fixture(scope="module")
def libvirt(booted: Dom0) -> Iterator[LibvirtGuests]:
    """The host with libvirtd; after it, without."""
    guests = LibvirtGuests(XenHost(booted))
    guests.start_libvirtd()
    try:
        yield guests
        guests.remove_all()
        guests.xen.assert_clean()
    finally:
        guests.stop_libvirtd()


@pytest.fixture
def web1(libvirt: LibvirtGuests) -> LibvirtGuests:
    """The same; web1 runs and is published."""
    libvirt.operations("web1")  # of earlier tests
    if "web1" not in libvirt.virsh("list", "--name").split():
        libvirt.xen.write("/etc/xen/web1.cfg", OLD_FILE)
        libvirt.define("web1", OCTET, "2202:22", "123:123/udp")
        libvirt.virsh("start", "web1")
        assert libvirt.operations("web1") == STARTED
        assert_published_once(libvirt)
    return libvirt


def assert_published_once(guests: LibvirtGuests) -> None:
    """The guest answers, and there is no more of it than libvirt's hook has published."""
    xen = guests.xen
    assert (WEB1, WEB1) == (xen.asks(2202), xen.asks(123, "udp"))
    assert xen.is_closed(8080)
    elements = [line.removeprefix("elements = { ").removesuffix(" }") for line in xen.elements()]
    assert sorted(elements) == ELEMENTS
    assert guests.records() == [f"libxl-{guest_uuid(OCTET)}"]
    assert xen.published() == PUBLISHED


@pytest.mark.extended
def test_ports_are_back_after_a_reboot(web1: LibvirtGuests) -> None:
    web1.virsh("reboot", "web1")
    assert web1.xen.is_closed(2202)
    assert_published_once(web1)
    assert web1.operations("web1") == [*STOPPED, *STARTED]


def test_a_saved_guest_has_no_ports_until_it_is_restored(web1: LibvirtGuests) -> None:
    web1.virsh("save", "web1", "/root/save")
    assert web1.xen.is_closed(2202)
    assert web1.operations("web1") == STOPPED
    web1.xen.assert_clean()
    web1.virsh("restore", "/root/save")
    assert_published_once(web1)
    assert web1.operations("web1") == STARTED


def test_ports_stay_while_libvirtd_is_down_and_after(web1: LibvirtGuests) -> None:
    with web1.without_libvirtd():
        assert_published_once(web1)
        synced = web1.xen.dom0.run(["cgw", "sync"], check=False)
        assert "libvirt: it does not answer at xen:///system" in synced.stderr
        assert_published_once(web1)
    assert web1.operations("web1") == ["reconnect"]
    assert_published_once(web1)


def test_sync_puts_back_what_a_flush_took_and_only_that(web1: LibvirtGuests) -> None:
    web1.xen.dom0.shell("nft flush ruleset; rm -rf /run/cgw")
    assert web1.xen.is_closed(2202)
    web1.xen.dom0.run(["cgw", "sync"])
    assert_published_once(web1)
    assert web1.xen.dom0.run(["cgw", "status"], check=False).returncode == 0


def test_check_shows_the_annotation_alone(web1: LibvirtGuests) -> None:
    lines = web1.xen.dom0.run(["cgw", "check", "web1"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["*:2202/tcp", "*:123/udp"]


def test_a_port_of_another_guest_is_refused_with_one_line(web1: LibvirtGuests) -> None:
    web1.define("web2", 202, "9090:90", "2202:22")
    said = web1.virsh("start", "web2", fails=True)
    lines = [line.partition("cgw: ")[2] for line in said.splitlines() if "cgw: " in line]
    assert len(lines) == 1, said
    assert lines[0].startswith('guest "web2": port *:2202/tcp is published by guest "web1"; ')
    assert web1.state("web2") == "shut off"
    assert web1.operations("web2") == ["prepare"]
    assert web1.xen.is_closed(9090)
    assert_published_once(web1)


def test_a_guest_that_declares_nothing_starts_whatever_is_broken(libvirt: LibvirtGuests) -> None:
    libvirt.define("plain", 203)
    dom0 = libvirt.xen.dom0
    dom0.shell("mv /usr/local/lib/cgw /usr/local/lib/away")
    try:
        libvirt.virsh("start", "plain")
        assert dom0.itself("until_answered", "tcp", "10.5.5.203", 22, within=300.0).guest == "plain"
    finally:
        dom0.shell("mv /usr/local/lib/away /usr/local/lib/cgw")
    assert libvirt.operations("plain") == STARTED


ENDS: dict[str, Callable[[LibvirtGuests], object]] = {
    "shut down": lambda guests: guests.virsh("shutdown", "web1"),
    "destroyed": lambda guests: guests.virsh("destroy", "web1"),
}


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(ENDS["shut down"], marks=pytest.mark.extended, id="shut down"),
        pytest.param(ENDS["destroyed"], id="destroyed"),
    ],
)
def test_ports_go_with_the_guest(
    web1: LibvirtGuests, end: Callable[[LibvirtGuests], object]
) -> None:
    end(web1)
    assert web1.xen.is_closed(2202)
    web1.xen.until("! ls /run/cgw/guests | grep .")
    assert web1.operations("web1") == STOPPED
    assert web1.state("web1") == "shut off"
    web1.xen.assert_clean()

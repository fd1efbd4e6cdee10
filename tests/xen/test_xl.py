"""Plain xl guests on a real Xen: what a packet meets after each thing that can befall a guest."""

import pytest

from tests.xen.host import XenHost

pytestmark = pytest.mark.xen

VIF = "ip=10.5.5.201,script=vif-cgw,gatewaydev=cgw 2202:22/tcp 123/udp"
CLIENT = "192.168.122.100"
WEB1 = f"web1 saw {CLIENT}"
XML = (
    '<publish address="10.5.5.201"><portForward proto="tcp"><range start="2202" to="22"/>'
    "</portForward></publish>"
)
PUBLISH = 'cgw_publish = [ "2202:22/tcp",\n  "123/udp", ]\n'


@pytest.fixture
def web1(xen: XenHost) -> XenHost:
    """A host where guest web1 runs and is published."""
    xen.define("web1", 201, VIF)
    xen.create("web1")
    assert xen.asks(2202) == WEB1
    assert xen.asks(123, "udp") == WEB1
    return xen


@pytest.mark.parametrize("end", ["shutdown", "destroy"])
def test_ports_go_with_the_guest(web1: XenHost, end: str) -> None:
    web1.xl(end, "web1")
    assert web1.is_closed(2202)
    web1.until("! [ -e /sys/class/net/vif*.0 ]")
    web1.until("! ls /run/cgw/guests | grep .")
    assert web1.elements() == []


def test_ports_are_back_after_a_reboot(web1: XenHost) -> None:
    web1.xl("reboot", "web1")
    assert web1.is_closed(2202)
    assert web1.asks(2202) == WEB1


def test_ports_travel_with_save_and_restore(web1: XenHost) -> None:
    web1.xl("save", "web1", "/root/save")
    assert web1.is_closed(2202)
    web1.xl("restore", "/root/save")
    assert web1.asks(2202) == WEB1


def test_a_migration_to_this_host_keeps_the_ports(xen: XenHost) -> None:
    xen.define("web1", 201, VIF, kind="pvh")
    xen.create("web1")
    assert xen.asks(2202) == WEB1
    xen.migrate("web1")
    assert xen.asks(2202) == WEB1
    assert xen.asks(123, "udp") == WEB1
    assert xen.published() == {"web1": ["123/udp", "2202/tcp"]}


@pytest.mark.parametrize("script", ["vif-cgw", "vif-bridge"])
@pytest.mark.parametrize("place", ["guests.d", "xl.cfg"])
def test_a_guest_may_declare_its_ports_in_a_file(xen: XenHost, place: str, script: str) -> None:
    xen.define(
        "web1", 201, f"ip=10.5.5.201,script={script}", more=PUBLISH if place == "xl.cfg" else ""
    )
    if place == "guests.d":
        xen.write("/etc/cgw/guests.d/web1.xml", XML)
    xen.create("web1")
    assert xen.asks(2202) == WEB1


def test_a_vif_comes_and_goes_while_the_guest_runs(web1: XenHost) -> None:
    more = ["ip=10.5.5.201", "script=vif-cgw", "bridge=guestbr0"]
    web1.xl("network-attach", "web1", *more, "gatewaydev=cgw 8080:80")
    assert web1.asks(8080) == WEB1
    web1.xl("network-detach", "web1", "1")
    assert web1.is_closed(8080)
    assert web1.asks(2202) == WEB1


def test_two_vifs_publish_each_its_own(xen: XenHost) -> None:
    xen.define("web1", 201, VIF, "ip=10.5.5.201,script=vif-cgw,gatewaydev=cgw 8080:80")
    xen.create("web1")
    assert (WEB1, WEB1) == (xen.asks(2202), xen.asks(8080))


@pytest.mark.parametrize(
    ("words", "reason"),
    [("2203:22/icmp", "give one of tcp, udp, sctp"), ("2202:22", 'published by guest \\"web1\\"')],
)
def test_a_guest_is_refused_with_one_line(web1: XenHost, words: str, reason: str) -> None:
    web1.define("web2", 202, f"ip=10.5.5.202,script=vif-cgw,gatewaydev=cgw {words}")
    said = web1.xl("create", "/etc/xen/web2.cfg", fails=True)
    assert reason.replace("\\", "") in said.replace("\\", "")
    assert web1.asks(2202) == WEB1
    assert web1.published() == {"web1": ["123/udp", "2202/tcp"]}


def test_a_guest_that_declares_nothing_starts_whatever_is_broken(xen: XenHost) -> None:
    xen.define("web1", 201, "ip=10.5.5.201,script=vif-cgw")
    xen.dom0.shell("mv /usr/local/lib/cgw /usr/local/lib/away")
    try:
        xen.create("web1")
        reply = xen.dom0.itself("until_answered", "tcp", "10.5.5.201", 22, within=300.0)
        assert reply.guest == "web1"
    finally:
        xen.dom0.shell("mv /usr/local/lib/away /usr/local/lib/cgw")


def test_sync_puts_back_what_a_flush_took(web1: XenHost) -> None:
    web1.dom0.shell("nft flush ruleset; rm -rf /run/cgw")
    web1.dom0.run(["cgw", "sync"])
    assert web1.asks(2202) == WEB1


def test_check_reads_all_three_places_and_says_which_counts(xen: XenHost) -> None:
    xen.define("web1", 201, VIF, more=PUBLISH)
    xen.write("/etc/cgw/guests.d/web1.xml", XML)
    lines = xen.dom0.run(["cgw", "check", "web1"]).stdout.splitlines()
    says = [line.partition("  (")[2] for line in lines]
    assert says[:2] == ["gatewaydev of vif0.0: counts)"] * 2
    assert set(says[2:]) == {
        "/etc/cgw/guests.d/web1.xml: does not count)",
        "/etc/xen/web1.cfg: does not count)",
    }

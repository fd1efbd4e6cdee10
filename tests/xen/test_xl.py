"""Plain xl guests on a real Xen: what a packet meets after each thing that can befall a guest."""

import pytest

from tests.xen.host import VIF, WEB1, XenHost

pytestmark = pytest.mark.xen

XML = (
    '<publish address="10.5.5.201"><portForward proto="tcp"><range start="2202" to="22"/>'
    "</portForward></publish>"
)
PUBLISH = 'cgw_publish = [ "2202:22/tcp",\n  "123/udp", ]\n'


def test_a_migration_to_this_host_keeps_the_ports(xen: XenHost) -> None:
    xen.define("web1", 201, VIF, kind="pvh")
    xen.create("web1")
    assert xen.asks(2202) == WEB1
    xen.migrate("web1")
    assert xen.asks(2202) == WEB1
    assert xen.asks(123, "udp") == WEB1
    assert xen.published() == {"web1": ["123/udp", "2202/tcp"]}


@pytest.mark.parametrize(
    ("place", "script"),
    [
        ("guests.d", "vif-cgw"),
        ("xl.cfg", "vif-bridge"),
        pytest.param("guests.d", "vif-bridge", marks=pytest.mark.extended),
        pytest.param("xl.cfg", "vif-cgw", marks=pytest.mark.extended),
    ],
)
def test_a_guest_may_declare_its_ports_in_a_file(xen: XenHost, place: str, script: str) -> None:
    xen.define(
        "web1", 201, f"ip=10.5.5.201,script={script}", more=PUBLISH if place == "xl.cfg" else ""
    )
    if place == "guests.d":
        xen.write("/etc/cgw/guests.d/web1.xml", XML)
    xen.create("web1")
    assert xen.asks(2202) == WEB1


@pytest.mark.extended
def test_two_vifs_publish_each_its_own(xen: XenHost) -> None:
    xen.define("web1", 201, VIF, "ip=10.5.5.201,script=vif-cgw,gatewaydev=cgw 8080:80")
    xen.create("web1")
    assert (WEB1, WEB1) == (xen.asks(2202), xen.asks(8080))


def test_a_guest_that_declares_nothing_starts_whatever_is_broken(xen: XenHost) -> None:
    xen.define("web1", 201, "ip=10.5.5.201,script=vif-cgw")
    xen.dom0.shell("mv /usr/local/lib/cgw /usr/local/lib/away")
    try:
        xen.create("web1")
        reply = xen.dom0.itself("until_answered", "tcp", "10.5.5.201", 22, within=300.0)
        assert reply.guest == "web1"
    finally:
        xen.dom0.shell("mv /usr/local/lib/away /usr/local/lib/cgw")


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

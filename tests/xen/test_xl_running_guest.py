"""A plain xl guest that runs: what may befall it. The tests share it, as long as it runs."""

from collections.abc import Iterator

import pytest

from tests.lab.xen.dom0 import Dom0
from tests.xen.host import VIF, WEB1, XenHost

pytestmark = pytest.mark.xen


@pytest.fixture(scope="module")
def host(booted: Dom0) -> Iterator[XenHost]:
    """The host; after all tests nothing of their guests may be left."""
    made = XenHost(booted)
    yield made
    made.destroy_all()
    made.assert_clean()


@pytest.fixture
def web1(host: XenHost) -> XenHost:
    """A host where guest web1 runs and is published."""
    if not host.runs("web1"):
        host.define("web1", 201, VIF)
        host.create("web1")
    assert host.asks(2202) == WEB1
    assert host.asks(123, "udp") == WEB1
    return host


def test_ports_travel_with_save_and_restore(web1: XenHost) -> None:
    web1.xl("save", "web1", "/root/save")
    assert web1.is_closed(2202)
    web1.xl("restore", "/root/save")
    assert web1.asks(2202) == WEB1


def test_a_vif_comes_and_goes_while_the_guest_runs(web1: XenHost) -> None:
    more = ["ip=10.5.5.201", "script=vif-cgw", "bridge=guestbr0"]
    web1.xl("network-attach", "web1", *more, "gatewaydev=cgw 8080:80")
    assert web1.asks(8080) == WEB1
    web1.xl("network-detach", "web1", "1")
    assert web1.is_closed(8080)
    assert web1.asks(2202) == WEB1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("2202:22", 'published by guest \\"web1\\"'),
        pytest.param("2203:22/icmp", "give one of tcp, udp, sctp", marks=pytest.mark.extended),
    ],
)
def test_a_guest_is_refused_with_one_line(web1: XenHost, words: str, reason: str) -> None:
    web1.define("web2", 202, f"ip=10.5.5.202,script=vif-cgw,gatewaydev=cgw {words}")
    said = web1.xl("create", "/etc/xen/web2.cfg", fails=True)
    assert reason.replace("\\", "") in said.replace("\\", "")
    assert web1.asks(2202) == WEB1
    assert web1.published() == {"web1": ["123/udp", "2202/tcp"]}


def test_sync_puts_back_what_a_flush_took(web1: XenHost) -> None:
    web1.dom0.shell("nft flush ruleset; rm -rf /run/cgw")
    web1.dom0.run(["cgw", "sync"])
    assert web1.asks(2202) == WEB1


@pytest.mark.extended
def test_ports_are_back_after_a_reboot(web1: XenHost) -> None:
    web1.xl("reboot", "web1")
    assert web1.is_closed(2202)
    assert web1.asks(2202) == WEB1


@pytest.mark.parametrize("end", ["destroy", pytest.param("shutdown", marks=pytest.mark.extended)])
def test_ports_go_with_the_guest(web1: XenHost, end: str) -> None:
    web1.xl(end, "web1")
    assert web1.is_closed(2202)
    web1.until("! [ -e /sys/class/net/vif*.0 ]")
    web1.until("! ls /run/cgw/guests | grep .")
    assert web1.elements() == []

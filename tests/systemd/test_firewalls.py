"""A firewall that is started, restarted or reloaded takes everybody's rules: ours come back.

firewalld leaves our table alone, but takes libvirt's chains and our exception in front of them;
libvirt then makes its chains anew, some time after systemd has done what it was told.
"""

import pytest

from tests.full import extended
from tests.systemd.gateway import ANSWERS, FIREWALLS, Gateway

pytestmark = pytest.mark.systemd


@pytest.mark.parametrize(
    ("order", "firewall"),
    [
        ("reload", "nftables"),
        extended("reload", "firewalld"),
        extended("restart", "nftables"),
        ("restart", "firewalld"),
    ],
)
def test_published_ports_answer_after(gateway: Gateway, order: str, firewall: str) -> None:
    gateway.switch_to(firewall)
    assert ANSWERS == gateway.answers()
    gateway.order(order, firewall)
    assert ANSWERS == gateway.answers()


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_published_ports_answer_after_the_other_firewall_was_started(
    gateway: Gateway, firewall: str
) -> None:
    """The two conflict: systemd stops the one, whose stop flushes, before it starts the other."""
    other = next(name for name in FIREWALLS if name != firewall)
    gateway.switch_to(other)
    gateway.order("start", firewall)
    assert not gateway.host.is_active(other)
    assert ANSWERS == gateway.answers()


@pytest.mark.parametrize("firewall", ["nftables", extended("firewalld")])
def test_published_ports_answer_after_all_was_started_at_once(
    gateway: Gateway, firewall: str
) -> None:
    """As at boot: one transaction that has the enabled firewall and cgw in it."""
    gateway.host.systemctl("stop", *FIREWALLS, "cgw-sync.service")
    gateway.host.systemctl("disable", *FIREWALLS)
    gateway.host.systemctl("add-wants", "multi-user.target", firewall)
    gateway.order("start", "multi-user.target")
    gateway.host.run(["rm", f"/etc/systemd/system/multi-user.target.wants/{firewall}.service"])
    gateway.host.systemctl("daemon-reload")
    assert gateway.host.is_active(firewall)
    assert gateway.host.is_active("cgw-sync.service")
    assert ANSWERS == gateway.answers()


def test_a_guest_with_a_problem_does_not_keep_the_unit_from_following(gateway: Gateway) -> None:
    """Here the problem is that libvirt's Xen driver, whose guests are recorded, does not answer."""
    gateway.switch_to("nftables")
    gateway.order("restart", "cgw-sync.service")
    assert "1" == gateway.property("cgw-sync.service", "ExecMainStatus")
    assert gateway.host.is_active("cgw-sync.service")
    gateway.order("reload", "nftables")
    assert ANSWERS == gateway.answers()


def test_two_reloads_in_a_row_are_both_followed(gateway: Gateway) -> None:
    gateway.switch_to("nftables")
    for _ in range(3):
        gateway.host.systemctl("reload", "nftables")
    gateway.settle()
    assert ANSWERS == gateway.answers()

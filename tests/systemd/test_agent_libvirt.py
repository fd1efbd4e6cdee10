"""libvirtd is stopped, killed, hung or restarted while the agent runs."""

import pytest

from tests.full import extended
from tests.libvirt.waiting import eventually
from tests.systemd.agent_host import ANSWER, GUEST, AgentHost

pytestmark = pytest.mark.systemd

SOCKETS = ("libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")
OTHER_PORT = 8085
#: By default Debian has 120.
IDLE_SECONDS = 5


@pytest.mark.parametrize("end", [extended("stop"), "kill"])
def test_the_agent_goes_on_without_libvirtd_and_follows_it_when_it_is_back(
    on: AgentHost, end: str
) -> None:
    pid = on.show("MainPID")
    if end == "stop":
        on.host.systemctl("stop", *SOCKETS, "libvirtd")
        assert not on.host.is_active("libvirtd")
    else:
        on.signal("libvirtd", "KILL")
    _assert_heals(on)
    on.host.systemctl("start", *SOCKETS, "libvirtd")
    _assert_follows_guests(on)
    assert pid == on.show("MainPID")


def test_a_hung_libvirtd_delays_no_repair(on: AgentHost) -> None:
    pid = on.show("MainPID")
    on.signal("libvirtd", "STOP")
    _assert_heals(on)
    on.signal("libvirtd", "CONT")
    _assert_follows_guests(on)
    assert pid == on.show("MainPID")


def test_a_restarted_libvirtd_is_followed(on: AgentHost) -> None:
    pid, before = on.show("MainPID"), on.records()
    on.host.systemctl("restart", "libvirtd")
    assert ANSWER == on.asks()
    assert before == on.records()
    _assert_follows_guests(on)
    assert pid == on.show("MainPID")


def test_a_libvirtd_that_somebody_stopped_stays_stopped(on: AgentHost) -> None:
    """Its sockets stay active: a client that connects would start it again."""
    on.host.systemctl("stop", "libvirtd")
    assert on.host.is_active("libvirtd.socket")
    _assert_heals(on)
    on.host.systemctl("restart", "cgw.service")
    assert not eventually(lambda: on.host.is_active("libvirtd"), within=2 * IDLE_SECONDS)


def test_an_idle_libvirtd_ends_and_is_not_started_again(on: AgentHost) -> None:
    on.virsh("destroy", GUEST)
    on.virsh("net-destroy", "nat")
    on.virsh("net-autostart", "nat", "--disable")
    on.host.write("/etc/default/libvirtd", f'LIBVIRTD_ARGS="--timeout {IDLE_SECONDS}"\n')
    try:
        on.host.systemctl("restart", "libvirtd")
        on.host.systemctl("restart", "cgw.service")
        assert eventually(lambda: not on.host.is_active("libvirtd"))
        assert not eventually(lambda: on.host.is_active("libvirtd"), within=2 * IDLE_SECONDS)
        assert on.host.is_active("libvirtd.socket")
        on.virsh("net-start", "nat")  # this starts it again
        on.virsh("start", GUEST)
        on.wait_for_answer()
    finally:
        on.host.path("/etc/default/libvirtd").unlink()
        on.host.systemctl("restart", "libvirtd")
        on.virsh("net-autostart", "nat")


def _assert_heals(on: AgentHost) -> None:
    on.shell("nft flush table inet cgw")
    on.wait_for_answer()


def _assert_follows_guests(on: AgentHost) -> None:
    """A port that is added to the running guest's annotation is published without a hook call."""
    on.virsh("metadata", GUEST, "urn:cgw-hooks:1", "--live", "--key", "cgw", "--set",
             f'<publish><portForward proto="tcp"><range start="8080" to="80"/>'
             f'<range start="{OTHER_PORT}" to="80"/></portForward></publish>')  # fmt: skip
    on.wait_for_answer(OTHER_PORT)
    on.virsh("destroy", GUEST)
    assert "refused" == on.asks()
    on.virsh("start", GUEST)
    on.wait_for_answer()

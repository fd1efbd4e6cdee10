"""What libvirt does to a running guest without calling its hook: the ports stay as they are."""

from collections.abc import Iterator

import pytest

from tests.lab.client import PATIENCE_FOR_SILENCE
from tests.lab.domain import PUBLISH_NAMESPACE
from tests.libvirt.answers import assert_open
from tests.libvirt.hypervisor import Guest
from tests.netns.configs import NODE

pytestmark = pytest.mark.libvirt

OTHER_PORT = 8181
OTHER_ANNOTATION = (
    '<publish address="10.5.5.99"><portForward proto="tcp">'
    f'<range start="{OTHER_PORT}" to="80"/></portForward></publish>'
)
INTERFACE = "<interface type='bridge'><source bridge='guestbr0'/><mac address='{mac}'/></interface>"


@pytest.fixture(autouse=True)
def nothing_changes(web: Guest) -> Iterator[None]:
    """Neither is the hook called, nor does a port answer otherwise, nor a rule or record change."""
    before = web.host.traces()
    yield
    assert web.operations() == []
    assert_open(web.host)
    assert before == web.host.traces()


def reboots(guest: Guest) -> None:
    assert guest.host.client.until_closed("tcp", NODE[4], 8080).answered is False


def test_reboot(web: Guest) -> None:
    web.tell("reboot")
    reboots(web)


def test_reset(web: Guest) -> None:
    web.virsh("reset")
    reboots(web)


def test_suspend_and_resume(web: Guest) -> None:
    web.virsh("suspend")
    assert web.host.asks(8080, patience=PATIENCE_FOR_SILENCE) == "timed out"
    web.virsh("resume")


def test_metadata_edited_live(web: Guest) -> None:
    element = ["--uri", PUBLISH_NAMESPACE, "--live"]
    before = web.host.node.virsh("metadata", web.name, *element).stdout
    web.virsh("metadata", *element, "--key", "cgw", "--set", OTHER_ANNOTATION)
    assert_open(web.host)
    assert web.host.is_closed(OTHER_PORT)
    web.virsh("metadata", *element, "--key", "cgw", "--set", before)


def test_metadata_removed_live(web: Guest) -> None:
    web.virsh("metadata", "--uri", PUBLISH_NAMESPACE, "--live", "--remove")


def test_another_device(web: Guest) -> None:
    interface = INTERFACE.format(mac="52:54:00:05:77:01")
    web.virsh("attach-device", "/dev/stdin", "--live", xml=interface)
    assert_open(web.host)
    web.virsh("detach-device", "/dev/stdin", "--live", xml=interface)


def test_another_definition(web: Guest) -> None:
    other = web.xml.replace('start="8080"', f'start="{OTHER_PORT}"')
    assert other != web.xml
    web.host.node.define(other)
    assert_open(web.host)
    assert web.host.is_closed(OTHER_PORT)


def test_undefined_while_it_runs(web: Guest) -> None:
    web.virsh("undefine")
    assert_open(web.host)
    web.host.node.define(web.xml)


def test_a_new_name_has_to_wait_until_it_is_off(web: Guest) -> None:
    assert "active" in web.virsh("domrename", "web9", check=False)

"""A guest on a plain bridge whose annotation names no address, with the real libvirtd."""

import pytest

from tests.lab.network import guest_address
from tests.libvirt.hypervisor import Hypervisor

pytestmark = pytest.mark.libvirt

PORT = 8080
#: Also the entries that the lab makes for all its guests.
FORGET_NEIGHBOURS = "ip neigh flush dev guestbr0 nud all"


def test_sync_publishes_a_guest_once_the_host_has_heard_of_it(host: Hypervisor) -> None:
    web = host.guest("web1", f"{PORT}:80", publish_address=None)
    host.shell(FORGET_NEIGHBOURS)
    web.start()
    assert host.is_closed(PORT)
    assert host.status()["web1"]["state"] == "no address yet"
    host.on_the_node.until_answered("tcp", guest_address(web.octet), 80)
    assert host.status()["web1"]["problem"]["code"] == "lease"
    assert host.cgw("sync").stdout == "published  web1\n"
    assert host.asks(PORT) == "web1 saw 10.5.5.251"
    assert host.status()["web1"]["state"] == "published"
    assert host.cgw("sync").stdout == ""

    host.shell(f"{FORGET_NEIGHBOURS}; nft flush ruleset")
    host.cgw("sync")
    assert host.asks(PORT) == "web1 saw 10.5.5.251"
    host.shell(FORGET_NEIGHBOURS)
    host.node.restart_libvirtd()
    assert web.is_called("reconnect")
    assert host.asks(PORT) == "web1 saw 10.5.5.251"
    web.destroy()
    assert host.is_closed(PORT)

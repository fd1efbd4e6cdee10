"""What a crash leaves: the host's, the hook's, or a stop that cgw never heard of."""

import pytest

from tests.lab.node import Node
from tests.libvirt.answers import PUBLISHED, assert_closed, assert_open
from tests.libvirt.hypervisor import Hypervisor
from tests.libvirt.waiting import eventually

pytestmark = pytest.mark.libvirt


def test_sync_takes_away_what_a_guest_left_that_stopped_without_cgw(host: Hypervisor) -> None:
    web = host.guest("web1", *PUBLISHED)
    before = host.traces()
    web.start()
    host.shell("mv /usr/local/bin/cgw /usr/local/bin/cgw.away")
    web.destroy()
    host.shell("mv /usr/local/bin/cgw.away /usr/local/bin/cgw")
    assert before != host.traces()
    assert host.cgw("sync").stdout == "withdrawn  web1\n"
    assert_closed(host)
    assert before == host.traces()


def test_a_host_that_crashed_publishes_again_what_it_starts_again(host: Hypervisor) -> None:
    web = host.guest("web1", *PUBLISHED)
    web.virsh("autostart")
    before = host.traces()
    web.start()
    assert_open(host)
    published = host.traces()
    host.node.kill_libvirtd()
    web.kill()
    host.shell("nft flush ruleset; rm -rf /run/cgw /run/libvirt")
    host.node.start_libvirtd()
    assert web.is_called("started")
    assert_open(host)
    assert published == host.traces()
    web.destroy()
    assert before == host.traces()


def kill_hook(node: Node) -> None:
    """Kill the `cgw hook` that waits for the node's lock, as the kernel's OOM killer would."""
    find = ["pgrep", "-f", "bin/cgw hook"]
    assert eventually(lambda: node.run(find, check=False).returncode == 0)
    node.run(["kill", "-KILL", *node.run(find).stdout.split()])


def test_sync_finishes_what_killed_hooks_left(host: Hypervisor) -> None:
    web = host.guest("web1", *PUBLISHED)
    before = host.traces()
    web.start()
    with host.node.popen(["flock", "/run/cgw/lock", "cat"]) as lock:
        with host.node.popen(["virsh", "destroy", "web1"]) as destroy:
            kill_hook(host.node)
            assert web.is_called("stopped")
            kill_hook(host.node)
            destroy.communicate()
        lock.communicate()
    assert destroy.returncode == 0
    assert "stopped: '/usr/local/bin/cgw hook' ended with status 137" in host.syslog()
    row = host.status()["web1"]
    assert (row["state"], row["problem"]["code"]) == ("failed", "not-running")
    host.cgw("sync")
    assert_closed(host)
    assert before == host.traces()

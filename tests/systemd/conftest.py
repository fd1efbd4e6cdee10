"""The host of these tests, which a real systemd runs, and the guests on it.

    client ------- uplink ------- xenbr0 [node] guestbr0 --------- web1   10.5.5.11
    192.168.122.100               .11           .251, .254
                                                virbr-nat -------- nat1   192.168.123.12

virbr-nat is a NAT network of a real libvirtd: its firewall rejects what comes in, but for our
exception. The guests are namespaces: no hypervisor runs them, their hooks are called by the tests.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.lab import network
from tests.lab.namespace import namespace, sweep_namespaces
from tests.lab.systemd_host import SystemdHost
from tests.lab.systemd_root import systemd_root
from tests.netns.asker import Asker
from tests.systemd.gateway import Gateway

_NEEDED_PROGRAMS = ("ip", "nsenter", "unshare", "setpriv", "mmdebstrap", "make")


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Say in one line what the machine lacks for this tier."""
    if os.geteuid() != 0:
        pytest.fail("the systemd tier boots a host in namespaces: run it as root (sudo make test)")
    missing = [program for program in _NEEDED_PROGRAMS if not shutil.which(program)]
    if missing:
        pytest.fail(f"the systemd tier needs {', '.join(missing)}: run make apt-lab")
    sweep_namespaces()


@contextmanager
def booted_gateway(label: str = "") -> Iterator[Gateway]:
    """A host with cgw installed and its units enabled; both guests are published.

    `label` tells the namespaces of one from those of another that this process has.
    """
    with ExitStack() as until_end:
        outside = until_end.enter_context(namespace(f"{label}client"))
        inside = until_end.enter_context(namespace(f"{label}node"))
        network.wire_client(outside)
        network.wire_node(inside, outside, network.NodeAddresses(1))
        host = SystemdHost(f"{label}node1", network=inside, root=systemd_root("bookworm"))
        until_end.enter_context(host)
        made = Gateway(host, Asker("client", outside, until_end), until_end, label)
        made.set_up()
        yield made


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    """The host that these tests share.

    It is there until the process ends, in which tests of other tiers may follow.
    """
    with booted_gateway("shared-") as made:
        yield made

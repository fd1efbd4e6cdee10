"""The hosts of these tests, which a real systemd runs, and the guests on them.

`gateway` is a host without the agent:

    client ------- uplink ------- xenbr0 [node] guestbr0 --------- web1   10.5.5.11
    192.168.122.100               .11           .251, .254
                                                virbr-nat -------- nat1   192.168.123.12

virbr-nat is a NAT network of a real libvirtd: its firewall rejects what comes in, but for our
exception. The guests are namespaces: no hypervisor runs them, their hooks are called by the tests.

`agent_host` has the agent, and on such a network a real guest, vm1, with a DHCP lease.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import full
from tests.lab import network
from tests.lab.namespace import Namespace, namespace, sweep_namespaces
from tests.lab.systemd_host import SystemdHost
from tests.lab.systemd_root import systemd_root
from tests.libvirt.conftest import SUITES
from tests.needs import fail_without
from tests.netns.asker import Asker
from tests.systemd.agent_host import AgentHost
from tests.systemd.gateway import Gateway

_NEEDED_PROGRAMS = ("ip", "nsenter", "unshare", "setpriv", "mmdebstrap", "make")


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Say in one line what the machine lacks for this tier."""
    fail_without("systemd", "the systemd tier boots a host in namespaces", _NEEDED_PROGRAMS)
    sweep_namespaces()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the agent's tests on both suites; without `--full`, on Debian 13 only one module."""
    if "suite" in metafunc.fixturenames:
        is_on_both = full.is_full() or getattr(metafunc.module, "IS_ON_BOTH_SUITES", False)
        metafunc.parametrize("suite", SUITES if is_on_both else SUITES[:1], scope="session")


@contextmanager
def booted_host(
    label: str, suite: str, root: Callable[[str], Path] = systemd_root
) -> Iterator[tuple[SystemdHost, Namespace, ExitStack]]:
    """A host, the namespace of a client, and what ends when the host does.

    `label` tells the namespaces of one from those of another that this process has. `root` makes
    the root of a suite.
    """
    with ExitStack() as until_end:
        outside = until_end.enter_context(namespace(f"{label}client"))
        inside = until_end.enter_context(namespace(f"{label}node"))
        network.wire_client(outside)
        network.wire_node(inside, outside, network.NodeAddresses(1))
        host = SystemdHost(f"{label}node1", network=inside, root=root(suite))
        yield until_end.enter_context(host), outside, until_end


@contextmanager
def booted_gateway(label: str, unit: str = "cgw-sync.service") -> Iterator[Gateway]:
    """A host with cgw installed and this unit enabled; both guests are published."""
    with booted_host(label, SUITES[0]) as (host, outside, until_end):
        made = Gateway(host, Asker("client", outside, until_end), until_end, label)
        made.set_up(unit)
        yield made


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    """The host that these tests share.

    It is there until the process ends, in which tests of other tiers may follow.
    """
    with booted_gateway("shared-") as made:
        yield made


@pytest.fixture(scope="session")
def agent_host(suite: str) -> Iterator[AgentHost]:
    """The host with the agent that the tests of one suite share."""
    with booted_host(f"{suite}-", suite) as (host, outside, until_end):
        made = AgentHost(host, outside, until_end)
        made.set_up()
        yield made


@pytest.fixture
def on(agent_host: AgentHost) -> Iterator[AgentHost]:
    """The same, for one test: it begins and ends as it was set up, and its guest answers."""
    agent_host.wait_for_answer()
    yield agent_host
    agent_host.repair()
    agent_host.wait_for_answer()

"""The labs of these tests: each runs on Debian 12 (libvirt 9) and on Debian 13 (libvirt 11)."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import open_lab, sweep
from tests.libvirt.answers import PUBLISHED, assert_closed, assert_open
from tests.libvirt.hypervisor import STARTED, STOPPED, Guest, Hypervisor
from tests.needs import fail_without
from tests.netns.configs import FULL_NAT

SUITES = ("bookworm", "trixie")
#: Modules that do not use the host of the others. They may run in another process.
MODULES_WITH_OWN_LABS = (
    "test_agent", "test_demo", "test_installation", "test_lab", "test_libvirt_networks",
    "test_publish", "test_publish_with_agent",
)  # fmt: skip
_NEEDED_PROGRAMS = ("ip", "nft", "nsenter", "unshare", "mmdebstrap", "gcc", "lz4", "zstd", "make")


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Say in one line what the machine lacks for this tier."""
    fail_without("libvirt", "the libvirt tier makes a lab of namespaces", _NEEDED_PROGRAMS)
    sweep()


@pytest.fixture(scope="session", params=SUITES)
def hypervisor(request: pytest.FixtureRequest) -> Iterator[Hypervisor]:
    """A FULL-NAT node with cgw installed."""
    with open_lab(request.param) as lab:
        yield Hypervisor(lab, FULL_NAT)


@pytest.fixture
def host(hypervisor: Hypervisor) -> Iterator[Hypervisor]:
    """The same, for one test: after it no trace of its guests may be left."""
    before = hypervisor.traces()
    yield hypervisor
    hypervisor.remove_guests()
    assert before == hypervisor.traces()
    assert hypervisor.hook_output() == ""


@pytest.fixture(scope="module")
def web(hypervisor: Hypervisor) -> Iterator[Guest]:
    """A running guest that a module's tests share; whatever they did, its ports go when it goes."""
    before = hypervisor.traces()
    guest = hypervisor.guest("web1", *PUBLISHED)
    try:
        guest.start()
        assert_open(hypervisor)
        assert STARTED == guest.operations()
        yield guest
        guest.destroy()
        assert STOPPED == guest.operations()[-2:]
        assert_closed(hypervisor)
        assert before == hypervisor.traces()
        assert hypervisor.hook_output() == ""
    finally:
        hypervisor.remove_guests()

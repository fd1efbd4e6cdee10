"""The hosts of these tests: fresh ones with libvirt and a guest, without cgw."""

from collections.abc import Iterator

import pytest

from tests.host.debian import Debian
from tests.lab.lab import sweep
from tests.lab.whole_host.host import WholeHost
from tests.libvirt.conftest import SUITES
from tests.needs import fail_without
from tests.packaging.built import built

_NEEDED_PROGRAMS = ("ip", "nsenter", "qemu-system-x86_64", "mmdebstrap", "mke2fs", "gcc")


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Say in one line what the machine lacks for this tier."""
    fail_without("host", "the host tier makes a Debian root", _NEEDED_PROGRAMS)
    sweep()


@pytest.fixture(scope="module", params=SUITES)
def host(request: pytest.FixtureRequest) -> Iterator[Debian]:
    """A host for the tests of a module, in the order in which they stand there."""
    made = built()
    with WholeHost(request.param) as whole:
        yield Debian(whole, made.folder / made.deb)

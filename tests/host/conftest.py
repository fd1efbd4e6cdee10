"""The hosts of these tests: fresh ones with libvirt and a guest, without cgw."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.host.debian import Debian
from tests.lab.lab import sweep
from tests.lab.whole_host.host import WholeHost
from tests.libvirt.conftest import SUITES
from tests.packaging.built import built

_NEEDED_PROGRAMS = ("ip", "nsenter", "qemu-system-x86_64", "mmdebstrap", "mke2fs", "gcc")


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Say in one line what the machine lacks for this tier."""
    if os.geteuid() != 0:
        pytest.fail("the host tier makes a Debian root: run it as root (sudo make test)")
    missing = [program for program in _NEEDED_PROGRAMS if not shutil.which(program)]
    if missing:
        pytest.fail(f"the host tier needs {', '.join(missing)}: run make apt-lab")
    sweep()


@pytest.fixture(scope="module", params=SUITES)
def host(request: pytest.FixtureRequest) -> Iterator[Debian]:
    """A host for the tests of a module, in the order in which they stand there."""
    made = built()
    with WholeHost(request.param) as whole:
        yield Debian(whole, made.folder / made.deb)

"""One Xen host for all tests, with cgw installed and without libvirt; each leaves it clean."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.xen.dom0 import Dom0
from tests.xen.host import XenHost

CHECKOUT = Path(__file__).parents[2]
_NEEDED = ("qemu-system-x86_64", "mmdebstrap", "gcc", "make")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cgw, as it is installed below a root."""
    if os.geteuid() != 0:
        pytest.fail("the Xen tier makes a Debian root: run it as root (sudo make test)")
    missing = [program for program in _NEEDED if not shutil.which(program)]
    if missing:
        pytest.fail(f"the Xen tier needs {', '.join(missing)}: run make apt-lab")
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        ["make", "-C", str(CHECKOUT), "install", f"DESTDIR={folder}"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def booted(installed: Path) -> Iterator[Dom0]:
    """Dom0, for the whole run."""
    with Dom0(own=[installed]) as dom0:
        dom0.run(["cgw", "install", "--xen"])
        yield dom0


@pytest.fixture
def xen(booted: Dom0) -> Iterator[XenHost]:
    """The host; at the end of a test its guests are destroyed, and nothing may be left of them."""
    host = XenHost(booted)
    yield host
    host.destroy_all()
    host.assert_clean()

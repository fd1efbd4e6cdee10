"""Hosts for the packages: fresh Debian roots, each in namespaces of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests import full
from tests.lab.cgroup import cgroups
from tests.lab.lab import sweep
from tests.lab.namespace import namespace
from tests.lab.package_root import package_root
from tests.libvirt.conftest import SUITES
from tests.needs import fail_without
from tests.packaging.built import Built
from tests.packaging.built import built as build
from tests.packaging.package_host import PackageHost

_NEEDED_PROGRAMS = ("git", "ip", "nsenter", "unshare", "setpriv", "mmdebstrap", "make")


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Say in one line what the machine lacks for this tier."""
    fail_without(
        "packaging", "the packages are built and installed in roots of their own", _NEEDED_PROGRAMS
    )
    sweep()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run on the first suite, and on both those tests that are marked so, or all of a full run."""
    if "suite" in metafunc.fixturenames:
        is_on_both = full.is_full() or any(
            mark.name == "on_both_suites" for mark in metafunc.definition.iter_markers()
        )
        metafunc.parametrize("suite", SUITES if is_on_both else SUITES[:1])


@pytest.fixture(scope="session")
def built() -> Built:
    """The packages and the wheel."""
    return build()


@contextmanager
def package_host(suite: str, built: Built) -> Iterator[PackageHost]:
    """A host of this suite, on which nothing is installed yet."""
    label = f"package-{suite}"
    with (
        namespace(label) as network,
        cgroups(label) as group,
        PackageHost(label, network=network, root=package_root(suite), built=built, cgroup=group)
        as host,
    ):  # fmt: skip
        yield host


@pytest.fixture
def host(suite: str, built: Built) -> Iterator[PackageHost]:
    """A host for one test."""
    with package_host(suite, built) as made:
        yield made

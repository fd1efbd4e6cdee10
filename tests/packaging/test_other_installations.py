"""One host, one installation: neither `cgw install` nor the package takes the other's files."""

import subprocess

import pytest
from release.source_tree import CHECKOUT

from tests.packaging.package_host import HOOK, PackageHost
from tests.packaging.tree import differences

pytestmark = pytest.mark.packaging

FAILED = 6
CURE = "there is nothing to do; to remove it, run: apt purge cgw-hooks\n"


def install_another(host: PackageHost) -> str:
    """Install cgw under /usr/local; return its path."""
    subprocess.run(
        ["make", "-C", CHECKOUT, "install", f"DESTDIR={host.path('/')}", "PREFIX=/usr/local"],
        check=True, capture_output=True,
    )  # fmt: skip
    return "/usr/local/bin/cgw"


def refuses_to_take_over(host: PackageHost, program: str) -> None:
    before = host.tree()
    for command in ("install", "uninstall"):
        said = host.run([program, command], check=False)
        assert (FAILED, "") == (said.returncode, said.stdout)
        assert said.stderr.startswith(f"cgw: {HOOK}: it belongs to the Debian package cgw-hooks")
        assert said.stderr.endswith(CURE)
    # Another Python than that of `make install` compiles what it loads.
    assert [] == differences(before, host.tree(), but_for=["usr/local/"])


def test_install_and_uninstall_leave_the_packages_files_alone(host: PackageHost) -> None:
    other = install_another(host)
    host.install_package()
    refuses_to_take_over(host, other)
    refuses_to_take_over(host, "/usr/bin/cgw")
    host.apt("remove", "cgw-hooks")  # the hooks stay, as conffiles
    refuses_to_take_over(host, other)


def test_the_packages_cgw_installs_nothing_in_another_root(host: PackageHost) -> None:
    host.install_package()
    said = host.run(["cgw", "install", "--root", "/mnt"], check=False)
    assert (FAILED, "") == (said.returncode, said.stdout)
    assert said.stderr.endswith("; install cgw-hooks in /mnt\n")
    assert [] == list(host.path("/mnt").iterdir())


def test_the_package_is_refused_beside_another_installation(host: PackageHost) -> None:
    other = install_another(host)
    host.run([other, "install"])
    before = host.tree()
    said = host.apt("install", f"/usr/lib/cgw-lab/{host.built.deb}", check=False)
    assert said.returncode != 0
    assert "/etc/systemd/system/cgw.service is from another installation" in said.stderr
    assert "run first: cgw uninstall" in said.stderr
    assert [] == differences(before, host.tree())
    host.run([other, "uninstall"])
    host.install_package()

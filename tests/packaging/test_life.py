"""The life of the package on a host: installed, upgraded, removed, purged, installed again."""

import pytest

from tests.libvirt.waiting import eventually
from tests.packaging.package_host import CONFFILES, HOOK, PackageHost
from tests.packaging.packages import CONFIG
from tests.packaging.tree import differences

pytestmark = pytest.mark.packaging

WELL = (0, "", "")
EDITED = "[node]\nname = 'node1'\n"


@pytest.mark.on_both_suites
def test_install_and_purge_leave_the_root_as_it_was(host: PackageHost) -> None:
    before = host.tree()
    host.install_package(host.built.deb, host.built.deb_for_xen)
    assert [WELL, WELL] == host.call_hook("prepare", "started")
    assert host.is_published()
    host.write("/etc/cgw/guests.d/web2.xml", "<publish/>")  # as `cgw publish` does for xl guests
    host.apt("purge", "cgw-hooks", "cgw-hooks-xen")
    assert [] == differences(before, host.tree())
    assert not host.path("/run/cgw").exists()
    assert [] == host.tables()


def test_a_removed_package_stops_no_guest(host: PackageHost) -> None:
    host.install_package()
    host.call_hook("prepare", "started")
    host.apt("remove", "cgw-hooks")
    assert [] == host.tables()
    assert "config-files" == host.installed_version().split()[1]
    assert [True] * len(CONFFILES) == [host.path(one).is_file() for one in CONFFILES]
    operations = ("prepare", "start", "started", "reconnect", "stopped", "release")
    assert [WELL] * len(operations) == host.call_hook(*operations, annotated=False)
    cure = "install cgw again, or remove /etc/libvirt/hooks/qemu.d/50-cgw"
    assert [WELL] == host.call_hook("start")
    for code, output, error in host.call_hook("prepare", "started", "reconnect", "stopped"):
        assert (0, "") == (code, output)
        assert error.endswith(f"since /usr/bin/cgw does not exist; {cure}\n")
    assert eventually(lambda: any(cure in line for line in host.syslog()))
    host.path("/usr/bin/python3").rename(host.path("/usr/bin") / "python3.away")
    assert {(0, "")} == {ended[:2] for ended in host.call_hook(*operations)}


def test_a_package_that_comes_back_publishes_with_the_config_that_it_left(
    host: PackageHost,
) -> None:
    host.install_package()
    host.write(CONFIG, EDITED)
    host.apt("remove", "cgw-hooks")
    host.install_package()
    assert [WELL, WELL] == host.call_hook("prepare", "started")
    assert host.is_published()
    assert EDITED == host.path(CONFIG).read_text()


def test_an_upgrade_keeps_published_ports_and_the_admins_config(host: PackageHost) -> None:
    host.install_package()
    host.write(CONFIG, EDITED)
    host.call_hook("prepare", "started")
    host.upgrade(config="# a later default")
    assert f"{host.built.version}+later1 installed" == host.installed_version()
    assert EDITED == host.path(CONFIG).read_text()
    assert host.is_published()
    assert [WELL, WELL] == host.call_hook("stopped", "release")
    assert not host.is_published()


def test_a_hook_that_dpkg_has_put_beside_the_admins_is_not_carried_out_twice(
    host: PackageHost,
) -> None:
    host.install_package()
    host.path(HOOK).write_text(f"{host.path(HOOK).read_text()}# the admin's\n")
    host.upgrade()
    beside = f"{HOOK}.dpkg-dist"
    assert host.path(beside).stat().st_mode & 0o111, "libvirt would not run it"
    assert [WELL] == host.call_hook("started", hook=beside)
    assert not host.is_published()
    assert [WELL] == host.call_hook("started")
    assert host.is_published()


def test_a_vif_script_without_cgw_still_adds_the_vif(host: PackageHost) -> None:
    """`cgw-hooks-xen` removed, with `cgw-hooks`: guests may still name its script."""
    host.install_package(host.built.deb, host.built.deb_for_xen)
    host.apt("remove", "cgw-hooks", "cgw-hooks-xen")
    bridge = "/etc/xen/scripts/vif-bridge"
    host.write(bridge, '#!/bin/sh\necho "$0 $*" >>/root/called\n', mode=0o755)
    vif = {"XENBUS_PATH": "backend/vif/1/0", "netdev": "cgw 2202:22/tcp"}
    for action in ("online", "offline"):
        host.run(["/etc/xen/scripts/vif-cgw", action, "type_if=vif"], environment=vif)
    called = host.path("/root/called").read_text().splitlines()
    assert [f"{bridge} {action} type_if=vif" for action in ("online", "offline")] == called

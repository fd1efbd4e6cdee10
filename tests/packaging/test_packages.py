"""What the Debian packages contain, and what Debian's own checker says of them."""

import pytest
from release.source_tree import CHECKOUT

from tests.lab.debian_root import CGW_PACKAGES
from tests.lab.host_init import GUEST_FOLDER
from tests.packaging.package_host import CONFFILES, PackageHost

pytestmark = pytest.mark.packaging

CONFFILES_FOR_XEN = ("/etc/xen/scripts/vif-cgw", "/etc/xen/scripts/vif-post.d/cgw.hook")
UNITS = ("cgw.service", "cgw-sync.service", "cgw-node.service", "cgw-resync.service",
         "cgw-resync.path", "cgw-conntrackd.service")  # fmt: skip
COMPLETIONS = (
    "/usr/share/bash-completion/completions/cgw",
    "/usr/share/zsh/vendor-completions/_cgw",
    "/usr/share/fish/vendor_completions.d/cgw.fish",
)


def field(host: PackageHost, deb: str, name: str) -> str:
    return host.run(["dpkg-deb", "--field", f"/{GUEST_FOLDER}/{deb}", name]).stdout.strip()


def test_the_packages_are_as_debian_wants_them(host: PackageHost) -> None:
    version = host.built.version
    depends = {one.split()[0].partition(":")[0] for one in
               field(host, host.built.deb, "Depends").split(", ")}  # fmt: skip
    assert set(CGW_PACKAGES) == depends
    for deb in (host.built.deb, host.built.deb_for_xen):
        assert ("all", version) == (
            field(host, deb, "Architecture"), field(host, deb, "Version"))  # fmt: skip
    host.install_package(host.built.deb, host.built.deb_for_xen)
    for name, expected in (("cgw-hooks", CONFFILES), ("cgw-hooks-xen", CONFFILES_FOR_XEN)):
        listed = host.run(["dpkg-query", "-W", "-f=${Conffiles}", name]).stdout.split()[::2]
        assert sorted(expected) == sorted(listed)
    assert f"cgw {version}\n" == host.run(["cgw", "--version"]).stdout
    files = host.run(["dpkg-query", "-L", "cgw-hooks"]).stdout.split()
    assert {*COMPLETIONS, *(f"/usr/lib/systemd/system/{unit}" for unit in UNITS)} <= {*files}
    examples = {
        f"/usr/share/doc/cgw-hooks/{file.relative_to(CHECKOUT / 'docs')}"
        for file in (CHECKOUT / "docs/examples").rglob("*")
    }
    assert examples
    assert examples <= {*files}
    assert not [name for name in files if "/share/" in name and "dist-packages" in name]
    # Started as `cgw hook` is: isolated, and without the modules that pip's launcher loads.
    assert "#!/usr/bin/python3 -I" == host.path("/usr/bin/cgw").read_text().splitlines()[0]


def test_lintian_has_nothing_to_say(host: PackageHost) -> None:
    debs = [f"/{GUEST_FOLDER}/{name}" for name in (host.built.deb, host.built.deb_for_xen)]
    said = host.run(["lintian", "--allow-root", "--fail-on", "error,warning", *debs], check=False)
    assert [] == said.stdout.splitlines()
    assert 0 == said.returncode, said.stderr

"""A Debian host on which the packages are installed, without systemd and without libvirt.

Its hooks are called as libvirt calls them. Its network has a bridge on which a guest could be.
"""

import re
from pathlib import Path
from subprocess import CompletedProcess

from tests.lab import domain
from tests.lab.host import Host
from tests.lab.host_init import GUEST_FOLDER
from tests.lab.namespace import Namespace
from tests.netns.specs import port_forward
from tests.packaging import packages
from tests.packaging.built import Built
from tests.packaging.tree import Tree, tree

HOOK = packages.HOOK
CONFFILES = (
    packages.CONFIG,
    HOOK,
    "/etc/libvirt/hooks/lxc.d/50-cgw",
    "/etc/libvirt/hooks/libxl.d/50-cgw",
)
PORT = 8080
_GUEST = "web1"
_OCTET = 11
_ADDRESS = f"10.5.5.{_OCTET}"
#: What libvirt gives a hook, and nothing else (docs/hooks.rst).
_HOOK_ENVIRONMENT = (
    "env", "-i", "HOME=/root", "LC_ALL=C",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)  # fmt: skip


class PackageHost(Host):
    """A context manager; the packages are in a folder of the host."""

    def __init__(
        self, name: str, *, network: Namespace, root: Path, built: Built, cgroup: str
    ) -> None:
        super().__init__(name, network=network, root=root, guest_folder=built.folder, cgroup=cgroup)
        self.built = built

    def configure(self) -> None:
        """Make the guests' bridge, and keep man-db, which lintian needs, from its index of pages.

        To make it takes a minute, and it stays when the pages are gone.
        """
        self.path("/var/lib/man-db/auto-update").unlink(missing_ok=True)
        self.network.ip(
            "link add guestbr0 type bridge\n"
            "link set guestbr0 up\n"
            "address add 10.5.5.251/24 dev guestbr0\n"
        )

    def tree(self) -> Tree:
        """All files of the host."""
        return tree(self.path("/"), over=self._root)

    # -- packages ----------------------------------------------------------------------------

    def apt(self, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        """Run apt-get, as an admin would."""
        return packages.apt(self, *arguments, check=check)

    def install_package(self, *names: str) -> CompletedProcess[str]:
        """Install package files, by default that of the main package."""
        chosen = names or (self.built.deb,)
        return self.apt("install", *(f"/{GUEST_FOLDER}/{name}" for name in chosen))

    def upgrade(self, *, config: str = "") -> None:
        """Install a later version: see `packages.upgrade`."""
        packages.upgrade(self, f"/{GUEST_FOLDER}/{self.built.deb}", config=config)

    def installed_version(self) -> str:
        """The version and status of the package: "0.1.0 installed"."""
        form = "${Version} ${db:Status-Status}"
        return self.run(["dpkg-query", "-W", f"-f={form}", "cgw-hooks"]).stdout

    # -- guests ------------------------------------------------------------------------------

    def call_hook(
        self, *operations: str, annotated: bool = True, hook: str = HOOK
    ) -> list[tuple[int, str, str]]:
        """Call the hook for a guest as libvirt would: exit code, stdout, stderr of each call."""
        publish = port_forward(f"{PORT}:80") if annotated else None
        xml = domain.domain_xml(_GUEST, octet=_OCTET, publish=publish, publish_address=_ADDRESS)
        calls = [[*_HOOK_ENVIRONMENT, hook, _GUEST, one, "begin", "-"] for one in operations]
        ended = [self.run(call, input=xml, check=False) for call in calls]
        return [(one.returncode, one.stdout, one.stderr) for one in ended]

    def is_published(self) -> bool:
        """Whether the ruleset translates the guest's port."""
        listed = self.run(["nft", "list", "ruleset"]).stdout
        return bool(re.search(rf"\b{PORT}\b.*{re.escape(_ADDRESS)}", listed))

    def tables(self) -> list[str]:
        """The nft tables of the host."""
        return self.run(["nft", "list", "tables"]).stdout.splitlines()

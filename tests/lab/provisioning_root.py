"""A Debian root folder that boots systemd, with the programs of the examples that install cgw.

It has what cgw depends on, so that the examples need no network, and no libvirt.
"""

from pathlib import Path

from tests.lab.cache import cached
from tests.lab.debian_root import BUILDER_VERSION, CGW_PACKAGES, UNWANTED, bootstrap
from tests.lab.progress import progress

PACKAGES = (
    "systemd-sysv",
    "dbus",
    "nftables",
    "iproute2",
    "procps",
    "kmod",
    *CGW_PACKAGES,
    "ansible-core",
    "python3-apt",
    "cloud-init",
)


def provisioning_root(suite: str) -> Path:
    """A root of `suite` ("bookworm", "trixie"), built at first use (about a minute), then cached.

    cloud-init does nothing at boot: it would look for the cloud that the machine may be in.
    Raises DebianRootError when mmdebstrap is missing or fails.
    """

    def build(folder: Path) -> None:
        with progress(f"building a Debian {suite} root with Ansible and cloud-init"):
            bootstrap(suite, folder / "root", PACKAGES)
            (folder / "root/etc/cloud/cloud-init.disabled").touch()

    ingredients = [BUILDER_VERSION, suite, *PACKAGES, *UNWANTED]
    return cached(f"provisioning-{suite}", ingredients, build) / "root"

"""A Debian root folder that boots systemd, with the firewalls whose reload removes all rules.

It contains only the distribution's packages, like tests/lab/debian_root.py.
"""

from pathlib import Path

from tests.lab.cache import cached
from tests.lab.debian_root import BUILDER_VERSION, CGW_PACKAGES, UNWANTED, bootstrap
from tests.lab.progress import progress

PACKAGES = (
    "systemd-sysv",
    "dbus",
    "firewalld",
    "ufw",
    "libvirt-daemon-system",
    "libvirt-daemon-driver-lxc",
    "libvirt-daemon-driver-qemu",
    "qemu-system-x86",
    "libvirt-clients",
    "dnsmasq-base",
    "nftables",
    "iptables",
    "iproute2",
    "procps",
    "kmod",
    *CGW_PACKAGES,
)


def systemd_root(suite: str) -> Path:
    """A root of `suite` ("bookworm", "trixie"), built at first use (about a minute), then cached.

    Raises DebianRootError when mmdebstrap is missing or fails.
    """

    def build(folder: Path) -> None:
        with progress(f"building a Debian {suite} root with systemd"):
            bootstrap(suite, folder / "root", PACKAGES)

    ingredients = [BUILDER_VERSION, suite, *PACKAGES, *UNWANTED]
    return cached(f"systemd-{suite}", ingredients, build) / "root"

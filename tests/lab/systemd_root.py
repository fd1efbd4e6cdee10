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
    "python3-prometheus-client",
    *CGW_PACKAGES,
)


def systemd_root(suite: str, *more: str) -> Path:
    """A root of `suite` ("bookworm", "trixie"), built at first use (about a minute), then cached.

    `more` packages are installed as well. Raises DebianRootError when mmdebstrap is missing or
    fails.
    """
    packages = (*PACKAGES, *more)

    def build(folder: Path) -> None:
        with progress(f"building a Debian {suite} root with systemd"):
            bootstrap(suite, folder / "root", packages)

    ingredients = [BUILDER_VERSION, suite, *packages, *UNWANTED]
    return cached(f"systemd-{suite}", ingredients, build) / "root"


def replicating_root(suite: str) -> Path:
    """The same with conntrackd, whose own service runs at boot, as Debian's packages do."""
    return systemd_root(suite, "conntrackd")

"""The image of a Debian host with libvirt: its kernel, its initramfs, and its root as a disk.

It contains the distribution's packages and the guest's image, the lab's agent, and a folder of
packages that cgw needs and that are not installed: apt finds them there, without a network.
"""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cache import cached
from tests.lab.debian_root import CGW_PACKAGES, UNWANTED, bootstrap
from tests.lab.disk import make_disk
from tests.lab.guest_image import GuestImage, guest_image, vmlinux
from tests.lab.progress import progress
from tests.lab.whole_host import network

BUILDER_VERSION = "1"
PACKAGES = (
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "apparmor",
    "libvirt-daemon-system",
    "libvirt-clients",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-config-network",
    "dnsmasq-base",
    "qemu-system-x86",
    "openssh-server",
    "ifupdown",
    "firewalld",
    "nftables",
    "iptables",
    "iproute2",
    "procps",
    "less",
    # The lab's agent.
    "python3",
    # Those of cgw's packages that take long to install under emulation.
    "python3-lxml",
    "python3-pyroute2",
)
#: Where AppArmor lets libvirt's guests read their kernel.
GUEST_FOLDER = "/var/lib/libvirt/images"
#: Where apt finds packages inside; its only source.
REPOSITORY = "/var/lib/cgw-lab/packages"
AGENT = "/usr/local/lib/cgw-lab-agent"
_UNIT = "/etc/systemd/system/cgw-lab-agent.service"
_AGENT_SOURCE = Path(__file__).parents[1] / "emulator" / "agent.py"
_DOWNLOAD_ONLY = "--yes --quiet --quiet --no-install-recommends --download-only"
_CUSTOMIZE = f"""\
systemctl --quiet disable firewalld
apt-get clean
apt-get install {_DOWNLOAD_ONLY} {" ".join(CGW_PACKAGES)}
mkdir -p {REPOSITORY}
mv /var/cache/apt/archives/*.deb {REPOSITORY}
"""
_FILES = {
    "/etc/hostname": "host1\n",
    "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 host1\n",
    "/etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "/etc/network/interfaces": network.INTERFACES,
    "/etc/apt/sources.list": f"deb [trusted=yes] file:{REPOSITORY} ./\n",
    _UNIT: f"""\
[Unit]
Description=carries out what the tests want
[Service]
ExecStart=/usr/bin/python3 -I {AGENT}
Environment=HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
KillMode=process
[Install]
WantedBy=multi-user.target
""",
}
_FREE_MIB = 500


@dataclass(frozen=True)
class HostImage:
    """What QEMU takes to boot the host."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """The distribution's own, as an ELF file."""
        return self.folder / "vmlinux"

    @property
    def initramfs(self) -> Path:
        """The one that Debian made for this kernel."""
        return self.folder / "initrd"

    @property
    def disk(self) -> Path:
        """The host's root; boot from a copy of it."""
        return self.folder / "root.ext4"


def host_image(suite: str) -> HostImage:
    """The image of `suite`, built at first use (two minutes), then cached by what goes into it.

    Raises DebianRootError, GuestImageError or DiskError.
    """
    guest = guest_image()
    files = [text for item in _FILES.items() for text in item]
    ingredients = [BUILDER_VERSION, suite, *PACKAGES, *CGW_PACKAGES, *UNWANTED, _CUSTOMIZE, *files]
    ingredients += [_AGENT_SOURCE.read_text(), guest.folder.name]

    def build(folder: Path) -> None:
        with progress(f"building a whole Debian {suite} host"):
            _build(suite, HostImage(folder), guest)

    return HostImage(cached(f"host-{suite}", ingredients, build))


def _build(suite: str, image: HostImage, guest: GuestImage) -> None:
    root = image.folder / "root"
    bootstrap(suite, root, PACKAGES, customize=_CUSTOMIZE)
    image.kernel.write_bytes(vmlinux(next((root / "boot").glob("vmlinuz-*")).read_bytes()))
    shutil.copy(next((root / "boot").glob("initrd.img-*")), image.initramfs)
    for path, text in _FILES.items():
        (root / path[1:]).write_text(text)
    for source in (root / "etc/apt/sources.list.d").iterdir():
        source.unlink()
    shutil.copy(_AGENT_SOURCE, root / AGENT[1:])
    wanted = root / "etc/systemd/system/multi-user.target.wants" / Path(_UNIT).name
    wanted.symlink_to(_UNIT)
    for name in (guest.kernel, guest.initrd):
        shutil.copy(guest.folder / name, root / GUEST_FOLDER[1:] / name)
    _index(root / REPOSITORY[1:])
    make_disk(root, image.disk, free_mib=_FREE_MIB)
    shutil.rmtree(root)


def _index(repository: Path) -> None:
    """Write the list of packages that apt reads (Debian's repository format)."""
    stanzas = []
    for package in sorted(repository.glob("*.deb")):
        control = subprocess.run(
            ["dpkg-deb", "--field", str(package)], check=True, capture_output=True, text=True
        ).stdout
        content = package.read_bytes()
        stanzas.append(
            f"{control.rstrip()}\nFilename: ./{package.name}\nSize: {len(content)}\n"
            f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
        )
    (repository / "Packages").write_text("\n".join(stanzas))

"""The image of a Xen host: the hypervisor, dom0's kernel, and dom0's Debian root as a disk.

It contains only the distribution's packages: nothing of this project, and no guest.
"""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cache import cached
from tests.lab.debian_root import CGW_PACKAGES, UNWANTED, bootstrap
from tests.lab.disk import make_disk
from tests.lab.guest_image import compile_static, vmlinux
from tests.lab.initramfs import initramfs
from tests.lab.progress import progress

BUILDER_VERSION = "1"
SUITE = "bookworm"
PACKAGES = (
    "xen-utils-4.17",
    "xen-hypervisor-4.17-amd64",
    "linux-image-amd64",
    "libvirt-daemon",
    "libvirt-daemon-driver-xen",
    "libvirt-clients",
    "iptables",
    "nftables",
    "iproute2",
    "conntrack",
    "mount",
    "procps",
    "kmod",
    *CGW_PACKAGES,
)
#: Drivers that a dom0 under QEMU never needs: most of the kernel package.
_UNUSED_DRIVERS = (
    *("accel", "ata", "bluetooth", "gpu", "hid", "hwmon", "i2c", "iio", "infiniband", "input"),
    *("isdn", "leds", "md", "media", "mmc", "mtd", "platform", "power", "scsi", "staging"),
    *("target", "thunderbolt", "usb", "net/can", "net/dsa", "net/ethernet", "net/fddi"),
    *("net/phy", "net/usb", "net/wan", "net/wireless"),
)
_UNUSED_FILE_SYSTEMS = ("btrfs", "ceph", "f2fs", "gfs2", "nfs", "nfsd", "ocfs2", "smb", "xfs")
UNWANTED_IN_DOM0 = (
    *UNWANTED,
    *(f"/lib/modules/*/kernel/drivers/{name}/*" for name in _UNUSED_DRIVERS),
    *(f"/lib/modules/*/kernel/fs/{name}/*" for name in _UNUSED_FILE_SYSTEMS),
    "/lib/modules/*/kernel/sound/*",
)
_ROOT_DISK_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "libcrc32c", "ext4")
_BOOT = Path(__file__).with_name("boot.c")
_INIT = Path(__file__).with_name("dom0_init.sh")
_FREE_MIB = 300


@dataclass(frozen=True)
class XenImage:
    """What QEMU takes to boot Xen."""

    folder: Path

    @property
    def hypervisor(self) -> Path:
        """Xen itself."""
        return self.folder / "xen"

    @property
    def kernel(self) -> Path:
        """Of dom0."""
        return self.folder / "vmlinux"

    @property
    def initramfs(self) -> Path:
        """Of dom0."""
        return self.folder / "initramfs"

    @property
    def disk(self) -> Path:
        """Dom0's root; boot from a snapshot of it."""
        return self.folder / "root.ext4"


def xen_image() -> XenImage:
    """The image, built at first use (a minute), then cached by what goes into it.

    Raises DebianRootError, GuestImageError or DiskError.
    """
    sources = [_BOOT.read_text(), _INIT.read_text()]
    ingredients = [BUILDER_VERSION, SUITE, *PACKAGES, *UNWANTED_IN_DOM0, *_ROOT_DISK_MODULES]

    def build(folder: Path) -> None:
        with progress("building the Xen image"):
            _build(folder)

    return XenImage(cached("xen", [*ingredients, *sources], build))


def _build(folder: Path) -> None:
    image, root = XenImage(folder), folder / "root"
    bootstrap(SUITE, root, PACKAGES, unwanted=UNWANTED_IN_DOM0)
    hypervisor = next((root / "boot").glob("xen-*.gz"))
    image.hypervisor.write_bytes(_gunzip(hypervisor))
    image.kernel.write_bytes(vmlinux(next((root / "boot").glob("vmlinuz-*")).read_bytes()))
    files = {"init": compile_static([_BOOT], folder)}
    for number, module in enumerate(_in_order_of_loading(root)):
        files[f"modules/{number:02}-{module.name}"] = module.read_bytes()
    image.initramfs.write_bytes(initramfs(files))
    init = root / "sbin/cgw-lab-init"
    shutil.copy(_INIT, init)
    init.chmod(0o755)
    make_disk(root, image.disk, free_mib=_FREE_MIB)
    shutil.rmtree(root)


def _gunzip(path: Path) -> bytes:
    return subprocess.run(["gzip", "-dc", str(path)], check=True, capture_output=True).stdout


def _in_order_of_loading(root: Path) -> Iterator[Path]:
    """The modules of the root disk, each behind those it depends on (modules.dep)."""
    folder = next((root / "lib/modules").iterdir())
    depends = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        module, _, needed = line.partition(":")
        depends[Path(module).name.partition(".")[0]] = [*reversed(needed.split()), module]
    seen = set()
    for wanted in _ROOT_DISK_MODULES:
        for module in depends[wanted]:
            if module not in seen:
                seen.add(module)
                yield folder / module

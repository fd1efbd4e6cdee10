"""A Xen host that has booted, saved: a run goes on from there, and does not boot.

It is kept like an image, and named by all that is in it: dom0's image, the guest's image and the
lab's own programs, QEMU's version and options. Nothing of cgw is in it.
"""

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cache import cached
from tests.lab.emulator import machine
from tests.lab.emulator.machine import Machine
from tests.lab.emulator.saved import Saved, ingredients
from tests.lab.guest_image import GuestImage, guest_image
from tests.lab.namespace import Namespace, namespace
from tests.lab.progress import progress
from tests.lab.xen.image import XenImage, xen_image

_CHECKOUT = Path(__file__).parents[3]
#: PVH guests need features that TCG has only for AMD; Xen cannot use TCG's RDTSCP.
CPU = "Opteron_G3,-rdtscp,+npt"
_MEMORY_MIB, _DOM0_MEMORY_MIB = 3072, 1024
# Neither the guards against a CPU's faults nor the clearing of free memory is of use here: both
# cost much under emulation.
_XEN_OPTIONS = (
    f"console=com1 com1=115200,8n1 loglvl=warning guest_loglvl=warning sched=credit "
    f"spec-ctrl=no bootscrub=no "
    f"dom0_mem={_DOM0_MEMORY_MIB}M,max:{_DOM0_MEMORY_MIB}M dom0_max_vcpus=1"
)
_KERNEL_OPTIONS = "console=hvc0 quiet loglevel=4 mitigations=off panic=-1"
GUEST_FOLDER = "/usr/lib/cgw-lab"
TAP = "tap0"
_LIST_MODULES = """
import sys
import tests.lab.xen.agent
for name, module in sys.modules.items():
    if name.partition(".")[0] == "tests":
        print(module.__file__)
"""


@dataclass(frozen=True)
class Snapshot(Saved):
    """What QEMU goes on from: also an archive for dom0."""

    image: XenImage
    has_network: bool = False

    @property
    def files(self) -> Path:
        """The archive beside it."""
        return self.folder / "files.tar"

    def start(
        self,
        until_end: ExitStack,
        folder: Path,
        more: Sequence[str] = (),
        *,
        outside: Namespace | None = None,
        tap: str = TAP,
    ) -> Machine:
        """Start QEMU; with `more` arguments, the disk stays as it is.

        A machine that has a network has the device `tap` in the namespace `outside`.
        """
        drive = f"file={self.disk},snapshot={'on' if more else 'off'}"
        arguments = [
            "-accel", "tcg,tb-size=512", "-machine", "q35", "-cpu", CPU, "-smp", "1",
            "-m", str(_MEMORY_MIB), "-no-reboot",
            *(_network(tap) if self.has_network else ("-net", "none")),
            "-kernel", str(self.image.hypervisor), "-append", _XEN_OPTIONS,
            "-initrd", f"{self.image.kernel} {_KERNEL_OPTIONS},{self.image.initramfs}",
            *machine.disk(0, drive), *machine.disk(1, f"file={self.files},readonly=on"), *more,
        ]  # fmt: skip
        inside = outside.enter_command() if outside else ()
        return Machine(arguments, until_end, folder, inside=inside)

    def resume(
        self,
        until_end: ExitStack,
        folder: Path,
        *,
        outside: Namespace | None = None,
        tap: str = TAP,
    ) -> Machine:
        """Go on from here; what dom0 writes is lost in the end. See `start` for the rest."""
        made = self.start(until_end, folder, self.incoming, outside=outside, tap=tap)
        made.set_clock()
        return made


def make_tap(outside: Namespace, name: str = TAP) -> None:
    """Make the device of a machine's network in a namespace."""
    outside.ip(f"tuntap add dev {name} mode tap\nlink set {name} up\n")


def _network(tap: str) -> list[str]:
    # Without its header, the kernel computes the checksums that the other end needs.
    return [
        "-netdev", f"tap,id=net,ifname={tap},script=no,downscript=no,vnet_hdr=off",
        "-device", "virtio-net-pci,netdev=net,romfile=",
    ]  # fmt: skip


def booted(*, has_network: bool = False) -> Snapshot:
    """The snapshot, made at first use (half a minute), then cached by what is in it.

    With `has_network`, the machine has a network device. Raises DebianRootError, GuestImageError,
    DiskError or EmulatorError.
    """
    image, guest = xen_image(), guest_image()
    sources = [f"{path}\0{(_CHECKOUT / path).read_text()}" for path in _programs()]
    named_by = [str(image.folder), str(guest.folder), *ingredients(__file__), *sources]

    def build(folder: Path) -> None:
        with progress("booting Xen"):
            _build(Snapshot(folder, image, has_network), guest)

    name = "booted-xen-net" if has_network else "booted-xen"
    return Snapshot(cached(name, named_by, build), image, has_network)


def _programs() -> Sequence[Path]:
    """The files of the modules that dom0's agent loads, below the checkout."""
    listed = subprocess.run(
        [sys.executable, "-c", _LIST_MODULES],
        cwd=_CHECKOUT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [Path(path).relative_to(_CHECKOUT) for path in sorted(listed.split("\n")) if path]


def _build(snapshot: Snapshot, guest: GuestImage) -> None:
    _pack(snapshot.files, guest)
    snapshot.copy_disk(snapshot.image.disk)
    with ExitStack() as until_end:
        folder = Path(until_end.enter_context(tempfile.TemporaryDirectory(prefix="cgw-xen-")))
        outside = None
        if snapshot.has_network:
            outside = until_end.enter_context(namespace("xen-outside"))
            make_tap(outside)
        dom0 = snapshot.start(until_end, folder, outside=outside)
        dom0.wait_until_ready()
        dom0.save(snapshot.memory)


def _pack(archive: Path, guest: GuestImage) -> None:
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in (guest.kernel, guest.initrd):
            tar.add(guest.folder / name, f"{GUEST_FOLDER}/{name}")
        for path in _programs():
            tar.add(_CHECKOUT / path, f"{GUEST_FOLDER}/checkout/{path}", filter=machine.of_root)

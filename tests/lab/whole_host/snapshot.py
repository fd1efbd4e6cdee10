"""A whole host that has booted, saved: a run goes on from there, and does not boot.

libvirt's default network is up, and the guest web1 is defined; nothing of cgw is in it. It is kept
like an image, and named by all that is in it.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.lab import domain
from tests.lab.cache import cached
from tests.lab.emulator import machine
from tests.lab.emulator.machine import Machine
from tests.lab.emulator.saved import Saved, ingredients
from tests.lab.namespace import Namespace, namespace
from tests.lab.progress import progress
from tests.lab.whole_host import network
from tests.lab.whole_host.image import GUEST_FOLDER, HostImage, host_image

GUEST = "web1"
_OCTET = 11
_MEMORY_MIB = 2048
_KERNEL_OPTIONS = "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 mitigations=off"
_SET_UP = """\
export LIBVIRT_DEFAULT_URI=qemu:///system
systemctl is-system-running --wait
virsh net-autostart default
virsh net-start default
virsh define /dev/stdin
apt-get update
sync
"""


@dataclass(frozen=True)
class Snapshot(Saved):
    """What QEMU goes on from."""

    image: HostImage

    def start(
        self, until_end: ExitStack, folder: Path, outside: Namespace, more: Sequence[str] = ()
    ) -> Machine:
        """Start QEMU with a client in `outside`; with `more` arguments, the disk stays as it is."""
        drive = f"file={self.disk},cache=unsafe,snapshot={'on' if more else 'off'}"
        arguments = [
            # Such a CPU has SVM with nested paging: the host has a /dev/kvm for its guests. There
            # is only one: while a kernel changes its own code, as for a static key, another
            # emulated CPU may execute the break point that stood there for a moment, and panic.
            "-accel", "tcg,tb-size=1024", "-machine", "q35", "-cpu", "max", "-smp", "1",
            # A kernel that panics ends the emulator.
            "-device", "pvpanic-pci", "-action", "panic=shutdown",
            "-m", str(_MEMORY_MIB), "-device", "virtio-rng-pci",
            "-kernel", str(self.image.kernel), "-initrd", str(self.image.initramfs),
            "-append", _KERNEL_OPTIONS, *machine.disk(0, drive),
            "-netdev", f"tap,id=uplink,ifname={network.TAP},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=uplink,mac={network.HOST_MAC},romfile=", *more,
        ]  # fmt: skip
        return Machine(arguments, until_end, folder, inside=outside.enter_command())

    def resume(self, until_end: ExitStack, folder: Path, outside: Namespace) -> Machine:
        """Go on from here, with a client in `outside`; what the host writes is lost in the end."""
        made = self.start(until_end, folder, outside, self.incoming)
        made.set_clock()
        return made


def booted(suite: str) -> Snapshot:
    """The snapshot of `suite`, made at first use (a minute), then cached by what is in it.

    Raises DebianRootError, GuestImageError, DiskError, EmulatorError or CommandError.
    """
    image = host_image(suite)
    named_by = [str(image.folder), network.INTERFACES, _definition(), *ingredients(__file__)]

    def build(folder: Path) -> None:
        with progress(f"booting a whole Debian {suite} host"):
            _build(Snapshot(folder, image))

    return Snapshot(cached(f"booted-{suite}", named_by, build), image)


def _build(snapshot: Snapshot) -> None:
    snapshot.copy_disk(snapshot.image.disk)
    with ExitStack() as until_end:
        folder = Path(until_end.enter_context(tempfile.TemporaryDirectory(prefix="cgw-host-")))
        outside = until_end.enter_context(namespace("outside"))
        network.wire(outside)
        host = snapshot.start(until_end, folder, outside)
        host.wait_until_ready()
        host.run(["bash", "-ec", _SET_UP], given=_definition())
        host.save(snapshot.memory)


def _definition() -> str:
    """Of a guest that publishes nothing; its address comes from libvirt's DHCP server."""
    return domain.domain_xml(
        GUEST, octet=_OCTET, interface="default", driver="kvm", guest_folder=GUEST_FOLDER
    )

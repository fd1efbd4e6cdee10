"""The lab's tiny guest: a Debian cloud kernel, an initramfs with one program, a container root.

The kernel comes from the machine's own apt sources and serves the nodes of every suite.
"""

import lzma
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cache import cached
from tests.lab.initramfs import initramfs
from tests.lab.progress import progress

BUILDER_VERSION = "1"
KERNEL_METAPACKAGE = "linux-image-cloud-amd64"
INIT_SOURCES = sorted(Path(__file__).with_name("guest").glob("*.[ch]"))
MODULES = (
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/input/evdev",
    "drivers/acpi/button",
    "drivers/misc/pvpanic/pvpanic",
    "drivers/misc/pvpanic/pvpanic-pci",
    "drivers/misc/pvpanic/pvpanic-mmio",
    "crypto/crc32c_generic",
    "lib/libcrc32c",
    "net/ipv4/udp_tunnel",
    "net/ipv6/ip6_udp_tunnel",
    "net/sctp/sctp",
    "drivers/net/xen-netfront",
)
"""Those that a kernel has built in, or does not have, are left out."""

_CONTAINER_FOLDERS = ("dev", "proc", "sys", ".oldroot", "etc", "run", "tmp", "selinux")
_LZ4_LEGACY_MAGIC = b"\x02\x21\x4c\x18"
_DECOMPRESSORS: dict[bytes, Callable[[bytes], bytes]] = {
    _LZ4_LEGACY_MAGIC: lambda data: _through(["lz4", "-d", "-c", "-q"], data),
    b"\x28\xb5\x2f\xfd": lambda data: _through(["zstd", "-d", "-c", "-q"], data),
    b"\xfd7zXZ\x00": lambda data: lzma.LZMADecompressor().decompress(data),
}


class GuestImageError(Exception):
    """The guest could not be built; the text says why."""


@dataclass(frozen=True)
class GuestImage:
    """What a domain boots from, as paths inside the folder `folder`."""

    folder: Path
    kernel: str = "vmlinux"
    initrd: str = "initramfs"
    container_root: str = "container"


def guest_image() -> GuestImage:
    """The guest, built at first use (a few seconds), then cached by the init's source.

    Raises GuestImageError when the kernel cannot be had or the init does not compile.
    """
    ingredients = [BUILDER_VERSION, *(source.read_text() for source in INIT_SOURCES), *MODULES]

    def build(folder: Path) -> None:
        with progress("building the guest image"):
            _build(folder)

    return GuestImage(cached("guest", ingredients, build))


def _build(folder: Path) -> None:
    work = folder / "work"
    work.mkdir()
    init = compile_static(INIT_SOURCES, work)
    package = _unpack_kernel_package(work)
    vmlinuz = next((package / "boot").glob("vmlinuz-*"))
    (folder / "vmlinux").write_bytes(_stripped(vmlinux(vmlinuz.read_bytes()), work))
    files = {"init": init}
    for name, content in _modules(package, work):
        files[f"modules/{name}.ko"] = content
    (folder / "initramfs").write_bytes(initramfs(files))
    for name in _CONTAINER_FOLDERS:
        (folder / "container" / name).mkdir(parents=True)
    container_init = folder / "container" / "init"
    container_init.write_bytes(init)
    container_init.chmod(0o755)
    shutil.rmtree(work)


def compile_static(sources: Iterable[Path], work: Path) -> bytes:
    """A small static program of these C files; work done in the folder `work`."""
    if shutil.which("gcc") is None:
        raise GuestImageError("gcc is not installed (see tests/lab/APT_PACKAGES)")
    program = work / "program"
    units = [str(source) for source in sources if source.suffix == ".c"]
    _run(["gcc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-o", str(program), *units], work)
    compiled = program.read_bytes()
    program.unlink()
    return compiled


def _unpack_kernel_package(work: Path) -> Path:
    """Fetch the kernel package that apt would install now, and unpack it; nothing is installed."""
    depends = _run(["apt-cache", "depends", KERNEL_METAPACKAGE], work)
    match = re.search(r"Depends: (linux-image-\S+)", depends)
    if not match:
        raise GuestImageError(f"apt knows no {KERNEL_METAPACKAGE} (apt-get update?)")
    _run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", match[1]], work)
    package = next(work.glob("linux-image-*.deb"))
    _run(["dpkg-deb", "--extract", str(package), str(work / "kernel")], work)
    return work / "kernel"


def vmlinux(vmlinuz: bytes) -> bytes:
    """The ELF kernel inside a bzImage: QEMU starts it in PVH mode, with nothing to unpack."""
    for magic, decompress in _DECOMPRESSORS.items():
        for found in re.finditer(re.escape(magic), vmlinuz):
            kernel = decompress(vmlinuz[found.start() :])
            if kernel.startswith(b"\x7fELF"):
                return kernel
    raise GuestImageError("the kernel is compressed in a way that the lab does not know")


def _stripped(elf: bytes, work: Path) -> bytes:
    path = work / "stripped"
    path.write_bytes(elf)
    _run(["strip", "--strip-debug", str(path)], work)
    return path.read_bytes()


def _modules(package: Path, work: Path) -> list[tuple[str, bytes]]:
    modules = []
    kernel_folder = next(package.glob("lib/modules/*/kernel"), None)
    if kernel_folder is None:
        kernel_folder = next(package.glob("usr/lib/modules/*/kernel"))
    for module in MODULES:
        for path in kernel_folder.glob(f"{module}.ko*"):
            content = path.read_bytes()
            if path.suffix == ".xz":
                content = lzma.decompress(content)
            modules.append((path.name.partition(".")[0], _stripped(content, work)))
    return modules


def _through(command: list[str], data: bytes) -> bytes:
    """Decompress with a tool that may complain of what follows the compressed part."""
    if shutil.which(command[0]) is None:
        raise GuestImageError(f"{command[0]} is not installed (see tests/lab/APT_PACKAGES)")
    return subprocess.run(command, input=data, capture_output=True, check=False).stdout


def _run(command: list[str], folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    if result.returncode != 0:
        raise GuestImageError(f"{command[0]} failed: {result.stderr[-2000:].strip()}")
    return result.stdout

"""A guest with real servers (dropbear, nginx, chrony) out of a Debian root, and what they need."""

import re
import subprocess
from pathlib import Path

from tests.lab.cache import cached
from tests.lab.guest_image import guest_image
from tests.lab.initramfs import initramfs
from tests.lab.progress import progress

BUILDER_VERSION = "2"
PROGRAMS = ("/usr/sbin/chronyd", "/usr/sbin/dropbear", "/usr/sbin/nginx")
FILES = Path(__file__).with_name("guest_files")
MEMORY_MIB = 160


def services_initramfs(root: Path) -> Path:
    """The initramfs of a guest with the servers of this Debian root, built at first use (1 s).

    A kernel unpacks several archives in a row: this one is the plain guest's, and one more.
    """
    plain = guest_image()
    base = (plain.folder / plain.initrd).read_bytes()
    texts = {path.name: path.read_text() for path in sorted(FILES.iterdir())}
    ingredients = [BUILDER_VERSION, root.parent.name, plain.folder.name, *PROGRAMS]
    ingredients += [text for item in texts.items() for text in item]

    def build(folder: Path) -> None:
        with progress("building the image of a guest with real servers"):
            files = {f"etc/{name}": text.encode() for name, text in texts.items()}
            files["services"] = files.pop("etc/services")
            files["bin/busybox"] = (root / "usr/bin/busybox").read_bytes()
            for program in ("/usr/bin/busybox", *PROGRAMS):
                files[f"bin/{Path(program).name}"] = (root / program[1:]).read_bytes()
                for library in _libraries(root, program):
                    files[library[1:]] = (root / library[1:]).read_bytes()
            (folder / "initramfs").write_bytes(base + initramfs(files))

    return cached("guest-services", ingredients, build) / "initramfs"


def _libraries(root: Path, program: str) -> list[str]:
    """The shared libraries of a program, and its loader, as the root's own ldd finds them."""
    listed = subprocess.run(
        ["chroot", str(root), "ldd", program], check=True, capture_output=True, text=True
    )
    return re.findall(r"(/\S+) \(0x", listed.stdout)

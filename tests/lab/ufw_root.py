"""A Debian root folder with ufw, and a program that runs it in the network of its caller.

It contains only the distribution's packages, like tests/lab/debian_root.py.
"""

from pathlib import Path

from tests.lab.cache import cached
from tests.lab.debian_root import BUILDER_VERSION, UNWANTED, bootstrap
from tests.lab.progress import progress

PACKAGES = ("ufw", "iptables", "kmod", "procps")
#: What ufw writes goes into a layer of its own, and stays for its next call.
_PROGRAM = """\
#!/bin/sh
exec unshare --mount --propagation private sh -ec '
mount -t overlay overlay -o lowerdir={root},upperdir={layer}/up,workdir={layer}/work {layer}/root
mount --rbind /proc {layer}/root/proc
mount --bind /dev {layer}/root/dev
exec chroot {layer}/root /usr/sbin/ufw "$@"' ufw "$@"
"""


def _ufw_root(suite: str) -> Path:
    """A root of `suite` ("bookworm", "trixie"), built at first use, then cached."""

    def build(folder: Path) -> None:
        with progress(f"building a Debian {suite} root with ufw"):
            bootstrap(suite, folder / "root", PACKAGES, customize="true")

    return cached(f"ufw-{suite}", [BUILDER_VERSION, suite, *PACKAGES, *UNWANTED], build) / "root"


def install_ufw(folder: Path, suite: str) -> Path:
    """Make a program `ufw` below this folder; return the folder for the PATH.

    Raises DebianRootError when mmdebstrap is missing or fails.
    """
    root, layer, programs = _ufw_root(suite), folder / "ufw", folder / "programs"
    for name in ("up", "work", "root"):
        (layer / name).mkdir(parents=True)
    programs.mkdir()
    program = programs / "ufw"
    program.write_text(_PROGRAM.format(root=root, layer=layer))
    program.chmod(0o755)
    return programs

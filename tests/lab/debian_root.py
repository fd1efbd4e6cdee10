"""A Debian root folder for the lab's nodes, made from the machine's own apt sources.

It contains only the distribution's packages: nothing of this project, and no state of a node.
"""

import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.lab.apt_sources import sources_for_suite
from tests.lab.cache import cached
from tests.lab.progress import progress

BUILDER_VERSION = "1"
"""Part of the cache's key: raise it when the way a root is built changes."""

_CGW_PACKAGES = Path(__file__).parents[2] / "APT_PACKAGES"
CGW_PACKAGES = tuple(
    line for line in _CGW_PACKAGES.read_text().splitlines() if not line.startswith("#")
)
"""What cgw runs on."""

PACKAGES = (
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-driver-lxc",
    "libvirt-daemon-config-network",
    "libvirt-clients",
    "qemu-system-x86",
    "qemu-utils",
    "dnsmasq-base",
    "iptables",
    "nftables",
    "iproute2",
    "conntrack",
    "conntrackd",
    "procps",
    "kmod",
    *CGW_PACKAGES,
    # Programs of the cluster's client and guests.
    "busybox",
    "chrony",
    "curl",
    "dropbear-bin",
    "nginx",
    "openssh-client",
)

ADD_USERS = """\
for group in kvm libvirt libvirt-qemu libvirt-dnsmasq; do
    getent group $group >/dev/null || groupadd --system $group
done
for user in libvirt-qemu libvirt-dnsmasq; do
    getent passwd $user >/dev/null || useradd --system --no-create-home --gid kvm $user
done
"""
"""What libvirt-daemon-system would add; that package brings polkit, systemd and more with it."""

UNWANTED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*")


class DebianRootError(Exception):
    """The root could not be built; the text says why."""


def debian_root(suite: str) -> Path:
    """A Debian root of `suite` ("bookworm", "trixie"), built at first use (30 s), then cached.

    Raises DebianRootError when mmdebstrap is missing or fails.
    """
    ingredients = [BUILDER_VERSION, suite, *PACKAGES, ADD_USERS, *UNWANTED]

    def build(folder: Path) -> None:
        with progress(f"building a Debian {suite} root"):
            bootstrap(suite, folder / "root", PACKAGES)

    return cached(f"root-{suite}", ingredients, build) / "root"


def bootstrap(
    suite: str,
    root: Path,
    packages: Sequence[str],
    *,
    unwanted: Iterable[str] = UNWANTED,
    customize: str = ADD_USERS,
) -> None:
    """Make a Debian root of these packages, without the files of these path patterns.

    In the end the shell runs `customize` inside it. If initramfs-tools is one of the packages, a
    kernel among them gets an initramfs; if it only comes with the kernel, this step is left out.
    mmdebstrap runs in its own mount and process namespaces, so that it leaves nothing behind.
    Raises DebianRootError.
    """
    if shutil.which("mmdebstrap") is None:
        raise DebianRootError("mmdebstrap is not installed (see tests/lab/APT_PACKAGES)")
    temporary = root.with_name("tmp")
    temporary.mkdir()
    hook = f'--customize-hook=chroot "$1" sh -ec {shlex.quote(customize)}'
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(temporary)}
    environment |= {} if "initramfs-tools" in packages else {"INITRD": "No"}
    isolated = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--mount-proc"]
    isolated += ["--fork", "--kill-child"]
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in unwanted]
    result = subprocess.run(
        [*isolated, "mmdebstrap", "--mode=root", "--variant=apt", "--quiet",
         f"--include={','.join(packages)}", *options, hook, suite, str(root), "-"],
        input=sources_for_suite(suite), env=environment,
        text=True, capture_output=True, check=False, start_new_session=True,
    )  # fmt: skip
    if result.returncode != 0:
        raise DebianRootError(f"mmdebstrap for {suite} failed: {result.stderr[-2000:].strip()}")
    temporary.rmdir()

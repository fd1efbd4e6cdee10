"""A Debian host under test: its guest, its package, and who answers a client outside."""

import json
import re
import subprocess
import tempfile
from pathlib import Path

from tests.lab.whole_host import network
from tests.lab.whole_host.host import WholeHost
from tests.lab.whole_host.snapshot import GUEST
from tests.libvirt.waiting import eventually
from tests.netns.asker import spoken

ADDRESS = network.HOST_ADDRESS
#: What the guest answers the client.
ANSWER = f"{GUEST} saw {network.CLIENT_ADDRESS}"
PORT = 8080
#: A guest starts within this time, in seconds, on a busy machine too.
_SLOW = 600.0


class Debian:
    """A whole host, with the words of the tests."""

    def __init__(self, whole: WholeHost, package: Path) -> None:
        self._whole = whole
        self._package = package
        self.client = whole.client

    # -- what an admin types -----------------------------------------------------------------

    def types(self, command: str) -> str:
        """Type a command, as root; what it prints. Raises CommandError when it fails."""
        return self._whole.shell(f"set -e\n{command}").strip()

    def virsh(self, command: str) -> str:
        """Type a command of virsh."""
        return self.types(f"virsh --quiet --connect qemu:///system {command}")

    def install(self) -> None:
        """Install the package with apt."""
        self._install(self._package)

    def upgrade(self) -> None:
        """Install the same package with a higher version."""
        with tempfile.TemporaryDirectory(prefix="cgw-upgrade-") as folder:
            self._install(_newer(self._package, Path(folder)))

    def _install(self, package: Path) -> None:
        self._whole.machine.copy(package, f"/root/{package.name}")
        self.types(f"cd /root && apt install --yes ./{package.name}")

    def reboot(self) -> None:
        """Reboot, and wait until systemd has started everything."""
        self._whole.reboot()

    # -- what a client sees ------------------------------------------------------------------

    def answers(self, port: int = PORT) -> str:
        """Who answers at a port in the end, and which client it saw; or why nobody does."""
        return spoken(self.client.until_answered("tcp", ADDRESS, port, within=_SLOW))

    def is_closed(self, port: int = PORT) -> bool:
        """Whether nobody answers there any more."""
        return not self.client.until_closed("tcp", ADDRESS, port, within=_SLOW).answered

    def has_its_own_ssh(self) -> bool:
        """Whether port 22 leads to the sshd of the host in the end."""

        def greets() -> bool:
            return self.client.tcp(ADDRESS, 22).payload.startswith("SSH-2.0-OpenSSH")

        return eventually(greets, within=_SLOW)

    # -- what the host knows -----------------------------------------------------------------

    def problems(self) -> list[str]:
        """The problems that `cgw status` names."""
        report = json.loads(self._whole.shell("cgw status --json", check=False))
        return [problem["message"] for problem in report["problems"]]

    def denials(self) -> list[str]:
        """What AppArmor has forbidden since the host's start."""
        log = self._whole.shell(
            "journalctl --boot --quiet --no-pager --output cat _TRANSPORT=kernel + _TRANSPORT=audit"
        )
        return [line for line in log.splitlines() if 'apparmor="DENIED"' in line]

    def confinement_of(self, program: str) -> str:
        """The profile that AppArmor applies to a program that runs, and its mode."""
        return self.types(f"cat /proc/$(pidof {program})/attr/current")


def _newer(package: Path, folder: Path) -> Path:
    """The package again, as the following version."""
    content = folder / "content"
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(content)], check=True)
    control = content / "DEBIAN/control"
    text = re.sub("^Version: .*$", r"\g<0>+newer", control.read_text(), flags=re.MULTILINE)
    control.write_text(text)
    newer = folder / f"newer-{package.name}"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", str(content), str(newer)],
        check=True, capture_output=True,
    )  # fmt: skip
    return newer

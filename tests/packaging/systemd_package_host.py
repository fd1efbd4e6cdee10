"""A host that systemd runs, with a guest that has its address from libvirt, and without cgw."""

from contextlib import ExitStack
from pathlib import Path

from tests.lab import domain
from tests.lab.namespace import Namespace
from tests.lab.node_files import QEMU_CONF
from tests.lab.systemd_host import SystemdHost
from tests.libvirt.waiting import eventually
from tests.packaging import packages
from tests.packaging.built import Built
from tests.systemd.agent_host import GUEST, NETWORK, UNIT, AgentHost

_DEB = Path("/root/cgw-hooks.deb")
_OCTET = 21
_BY_DEFAULT = "/etc/libvirt/qemu/networks/autostart/default.xml"


class SystemdPackageHost(AgentHost):
    """The guest runs before the package is installed, and declares no ports."""

    def __init__(
        self, host: SystemdHost, client: Namespace, until_end: ExitStack, built: Built
    ) -> None:
        super().__init__(host, client, until_end)
        self._built = built

    def set_up(self) -> None:
        """Start the guest, and wait for its lease."""
        self.host.path(_DEB).write_bytes((self._built.folder / self._built.deb).read_bytes())
        self.host.path(_BY_DEFAULT).unlink(missing_ok=True)
        self.host.write("/etc/libvirt/qemu.conf", QEMU_CONF)
        self.host.systemctl("restart", "libvirtd")
        self.virsh("net-define", "/dev/stdin", given=domain.nat_network_xml(NETWORK))
        self.virsh("net-start", NETWORK)
        guest = domain.domain_xml(GUEST, octet=_OCTET, interface=NETWORK)
        self.virsh("define", "/dev/stdin", given=guest)
        self.virsh("start", GUEST)
        assert eventually(lambda: "ipv4" in self.virsh("domifaddr", GUEST))

    def install_package(self) -> None:
        """Install the package, as an admin would."""
        packages.apt(self.host, "install", str(_DEB))

    def upgrade(self, number: int) -> None:
        """Install a later version; a higher number is later."""
        packages.upgrade(self.host, str(_DEB), number=number)

    def apt(self, *arguments: str) -> None:
        """Run apt-get, as an admin would."""
        packages.apt(self.host, *arguments)

    def publish(self, spec: str) -> None:
        """Publish a port of the guest, as an admin would."""
        self.host.run(["cgw", "publish", GUEST, spec])

    def addresses(self) -> str:
        """The addresses of the host's devices, as ip shows them."""
        return self.host.run(["ip", "address", "show"]).stdout

    def is_enabled(self, unit: str = UNIT) -> bool:
        """Whether systemd starts the unit at boot."""
        done = self.host.run(["systemctl", "is-enabled", unit], check=False)
        return done.stdout.strip() == "enabled"

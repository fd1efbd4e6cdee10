"""The host under test: its units, its guests, who answers at its ports."""

from contextlib import ExitStack

from tests.lab import domain, network
from tests.lab.host import HostError
from tests.lab.namespace import namespace
from tests.lab.systemd_host import SystemdHost
from tests.libvirt.waiting import eventually
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, NODE
from tests.netns.specs import port_forward

#: Of libvirt's Xen driver, which this host does not have: a sync leaves its guests as they are.
HOOK = "/etc/libvirt/hooks/libxl.d/50-cgw"
FIREWALLS = ("nftables", "firewalld")
#: Published port -> what the client hears there.
ANSWERS = {8080: f"web1 saw {CLIENT[4]}", 8081: f"nat1 saw {CLIENT[4]}"}
NAT_BRIDGE = "virbr-nat"
_LONGEST_JOBS = 120.0
_BY_DEFAULT = "/etc/libvirt/qemu/networks/autostart/default.xml"


class Gateway:
    """A host that systemd runs, with libvirtd, both firewalls, cgw and two guests."""

    def __init__(
        self, host: SystemdHost, client: Asker, until_end: ExitStack, label: str = ""
    ) -> None:
        self.host = host
        self.client = client
        self.web1, self.nat1 = (
            Asker(name, until_end.enter_context(namespace(label + name)), until_end)
            for name in ("web1", "nat1")
        )

    def set_up(self, unit: str) -> None:
        """Install cgw and enable this unit of it, and start the guests."""
        self.host.install()
        self.host.systemctl("enable", "--now", unit)
        self._join(self.web1, network.GUEST_BRIDGE, "10.5.5.11", network.GATEWAY_ADDRESS)
        self._add_nat_network()
        self._join(self.nat1, NAT_BRIDGE, "192.168.123.12", "192.168.123.1")
        self.start_guests()

    def start_guests(self) -> None:
        """Call the hooks of both as libvirt would."""
        self._start("web1", 11, "10.5.5.11", "8080:80")
        self._start("nat1", 12, "192.168.123.12", "8081:80")

    def _add_nat_network(self) -> None:
        self.host.path(_BY_DEFAULT).unlink(missing_ok=True)
        for verb, name in (("net-define", "/dev/stdin"), ("net-start", "nat")):
            self.host.run(
                ["virsh", "--connect", "network:///system", verb, name],
                input=domain.nat_network_xml("nat"),
            )

    def _join(self, guest: Asker, bridge: str, address: str, gateway: str) -> None:
        tap, inside = f"tap-{guest.name}", guest.namespace
        self.host.network.ip(
            f"link add {tap} master {bridge} type veth peer name eth0 netns {inside.name}\n"
            f"link set {tap} up\n"
        )
        inside.ip(
            "link set eth0 up\n"
            f"address add {address}/24 dev eth0\n"
            f"route add default via {gateway}\n"
        )
        guest.serve(address, "80/tcp")

    def _start(self, name: str, octet: int, address: str, spec: str) -> None:
        xml = domain.domain_xml(
            name,
            octet=octet,
            publish=port_forward(spec),
            publish_address=address,
            interface=domain.BRIDGE if name == "web1" else "nat",
        ).replace('network="nat"', f'network="nat" bridge="{NAT_BRIDGE}"')
        for operation in ("prepare", "start", "started"):
            self.host.run([HOOK, name, operation, "begin", "-"], input=xml)

    # -- what the tests ask ------------------------------------------------------------------

    def switch_to(self, firewall: str) -> None:
        """Stop the other firewall, start this one; wait until cgw has followed."""
        if [name for name in FIREWALLS if self.host.is_active(name)] != [firewall]:
            self.host.systemctl("stop", *FIREWALLS)
            self.host.systemctl("start", firewall)
        self.host.systemctl("start", "cgw-sync.service")
        self.settle()

    def order(self, *words: str) -> None:
        """`systemctl WORDS`, and wait until whatever follows from it is done."""
        self.host.systemctl(*words)
        self.settle()

    def settle(self) -> None:
        """Wait until systemd has no job left. Raises HostError."""
        if not eventually(lambda: "No jobs" in self._jobs(), within=_LONGEST_JOBS):
            raise HostError(f"systemd does not get done: {self._jobs()}")

    def _jobs(self) -> str:
        return self.host.run(["systemctl", "list-jobs"]).stdout

    def answers(self) -> dict[int, str]:
        """Who answers at the published ports now."""
        return {port: self.client.asks(NODE[4], port) for port in ANSWERS}

    def is_closed(self) -> bool:
        """Whether nobody answers at any published port."""
        return all(self.client.is_unanswered(NODE[4], port) for port in ANSWERS)

    def property(self, unit: str, name: str) -> str:
        """What systemd knows of a unit."""
        return self.host.run(["systemctl", "show", "--value", "-p", name, unit]).stdout.strip()

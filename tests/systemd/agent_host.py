"""A host with the agent as its unit runs it, a real libvirtd and a real guest with a DHCP lease."""

from contextlib import ExitStack

from tests.documents import block
from tests.lab import domain, network
from tests.lab.client import Client
from tests.lab.host import HostError
from tests.lab.namespace import Namespace, namespace
from tests.lab.node_files import QEMU_CONF
from tests.lab.systemd_host import SystemdHost
from tests.libvirt.waiting import eventually
from tests.netns.asker import Asker, spoken
from tests.netns.configs import CLIENT, NODE
from tests.netns.specs import port_forward
from tests.systemd.pulse import Pulse

UNIT = "cgw.service"
FIREWALLS = ("nftables", "firewalld", "ufw")
PORT = 8080
#: What a client hears at the published port.
ANSWER = f"vm1 saw {CLIENT[4]}"
NEIGHBOURS_ANSWER = f"web1 saw {CLIENT[4]}"
GUEST = "vm1"
NETWORK = "nat"
BRIDGE = "virbr-nat"
#: A guest on the bridge of the host: a namespace. The tests call its hooks, as those of
#: a driver of libvirt that this host does not have: the agent then leaves it as its record says.
NEIGHBOUR, NEIGHBOUR_PORT, NEIGHBOUR_ADDRESS = "web1", 8081, "10.5.5.11"
HOOK = "/etc/libvirt/hooks/libxl.d/50-cgw"
_OCTET = 21
_DROP_IN = f"/etc/systemd/system/{UNIT}.d/test.conf"
_REPAIR = f"""\
rm -f /etc/cgw/cgw.toml
kill -CONT $(pidof libvirtd) || true
if [ -e {_DROP_IN} ]; then rm {_DROP_IN}; systemctl daemon-reload; systemctl stop {UNIT}; fi
! grep -q ENABLED=yes /etc/ufw/ufw.conf || ufw --force disable
! systemctl is-active --quiet {" ".join(FIREWALLS)} || systemctl stop {" ".join(FIREWALLS)}
# A stopped firewall has also taken libvirt's rules, which only libvirt makes.
iptables -C FORWARD -j LIBVIRT_FWI 2>/dev/null || systemctl stop libvirtd
systemctl reset-failed
systemctl start libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd {UNIT}
export LIBVIRT_DEFAULT_URI=qemu:///system
virsh net-list --name | grep -q {NETWORK} || virsh net-start {NETWORK}
virsh list --name | grep -q {GUEST} || virsh start {GUEST}
"""
_BY_DEFAULT = "/etc/libvirt/qemu/networks/autostart/default.xml"
_LONGEST_JOBS = 120.0


class AgentHost:
    """A host that systemd runs; its guest publishes a port of the address that libvirt gives it."""

    def __init__(self, host: SystemdHost, client: Namespace, until_end: ExitStack) -> None:
        self.host = host
        self.client_network = client
        self.client = Client(client)
        inside = until_end.enter_context(namespace(f"{host.name}-{NEIGHBOUR}"))
        self.neighbour = Asker(NEIGHBOUR, inside, until_end)

    def set_up(self) -> None:
        """Install and enable cgw as the README says, and start the guest."""
        self.host.path(_BY_DEFAULT).unlink(missing_ok=True)
        self.host.write("/etc/libvirt/qemu.conf", QEMU_CONF)
        self._install_by_the_readme()
        network = domain.nat_network_xml(NETWORK)
        self.virsh("net-define", "/dev/stdin", given=network)
        self.virsh("net-autostart", NETWORK)
        self.virsh("net-start", NETWORK)
        self.virsh("define", "/dev/stdin", given=self.definition())
        self.virsh("start", GUEST)
        self._join_neighbour()
        self.wait_for_answer()

    def _install_by_the_readme(self) -> None:
        apt, make, *others = block("README.md#install-from-a-checkout").text.splitlines()
        assert apt.startswith("sudo apt install ")  # the packages are in the root already
        assert make.startswith("sudo make install ")  # the host has no checkout
        self.host.make_install()
        for line in others:
            self.shell(f'sudo() {{ "$@"; }}\n{line}')

    def _join_neighbour(self) -> None:
        inside = self.neighbour.namespace
        self.host.network.ip(
            f"link add tap1 master {network.GUEST_BRIDGE} type veth"
            f" peer name eth0 netns {inside.name}\n"
            "link set tap1 up\n"
        )
        inside.ip(
            "link set eth0 up\n"
            f"address add {NEIGHBOUR_ADDRESS}/24 dev eth0\n"
            f"route add default via {network.GATEWAY_ADDRESS}\n"
        )
        self.neighbour.serve(NEIGHBOUR_ADDRESS, "80/tcp 53/udp")

    @staticmethod
    def definition(*specs: str) -> str:
        """The guest's definition; it publishes these (see `port_forward`), by default one port."""
        published = "".join(map(port_forward, specs or (f"{PORT}:80",)))
        return domain.domain_xml(GUEST, octet=_OCTET, publish=published, interface=NETWORK)

    # -- what the tests do -------------------------------------------------------------------

    def virsh(self, *arguments: str, given: str | None = None) -> str:
        """Run virsh; return its output."""
        command = ["virsh", "--quiet", "--connect", "qemu:///system", *arguments]
        return self.host.run(command, input=given).stdout.strip()

    def call_hook(self, *operations: str) -> None:
        """Call the hook script for the neighbour, as libvirt would."""
        xml = domain.domain_xml(
            NEIGHBOUR,
            octet=11,
            publish=port_forward(f"{NEIGHBOUR_PORT}:80") + port_forward("5353:53/udp"),
            publish_address=NEIGHBOUR_ADDRESS,
        )
        for operation in operations:
            self.host.run([HOOK, NEIGHBOUR, operation, "begin", "-"], input=xml)

    def shell(self, script: str) -> str:
        """Run a script as an admin would; return its output."""
        return self.host.run(["sh", "-ec", script]).stdout

    def pulse(self, port: int = PORT) -> Pulse:
        """A client that connects to a published port all the time."""
        return Pulse(self.client_network, NODE[4], port)

    def signal(self, unit: str, name: str) -> None:
        """Send a signal to a unit's main process."""
        self.host.run(["kill", f"-{name}", self.show("MainPID", unit)])

    def drop_in(self, text: str) -> None:
        """Change the agent's unit, for its next start. Without text: take the change back."""
        if text:
            self.host.write(_DROP_IN, text)
        else:
            self.host.path(_DROP_IN).unlink(missing_ok=True)
        self.host.systemctl("daemon-reload")

    def repair(self) -> None:
        """Bring the host back to where tests begin: no firewall, the agent, libvirtd, the guest."""
        self.shell(_REPAIR)
        self.settle()

    # -- what the tests ask ------------------------------------------------------------------

    def show(self, name: str, unit: str = UNIT) -> str:
        """What systemd knows of a unit."""
        return self.host.run(["systemctl", "show", "--value", "-p", name, unit]).stdout.strip()

    def settle(self) -> None:
        """Wait until systemd has no job left. Raises HostError."""
        if not eventually(lambda: "No jobs" in self._jobs(), within=_LONGEST_JOBS):
            raise HostError(f"systemd does not get done: {self._jobs()}")

    def _jobs(self) -> str:
        return self.host.run(["systemctl", "list-jobs"]).stdout

    def asks(self, port: int = PORT) -> str:
        """Who answers at a published port, as "vm1 saw 192.168.122.100"; or why nobody does."""
        return spoken(self.client.tcp(NODE[4], port))

    def wait_for_answer(self, port: int = PORT, answer: str = ANSWER) -> None:
        """Wait until the guest answers at a published port. Raises HostError."""
        reply = spoken(self.client.until_answered("tcp", NODE[4], port))
        if reply != answer:
            status = self.host.run(["cgw", "status"], check=False)
            raise HostError(f"port {port}: {reply}\n{status.stdout}\n{self.journal()}")

    def journal(self, unit: str = UNIT, since: str = "") -> str:
        """What the journal has of a unit, and what cgw has written to syslog."""
        after = ["--after-cursor", since] if since else []
        command = ["journalctl", "--no-pager", "-o", "cat", f"_SYSTEMD_UNIT={unit}", "+",
                   f"UNIT={unit}", "+", "SYSLOG_IDENTIFIER=cgw", *after]  # fmt: skip
        return self.host.run(command).stdout

    def cursor(self) -> str:
        """The end of the journal now, for `journal`."""
        said = self.host.run(["journalctl", "--no-pager", "-n", "0", "--show-cursor"]).stdout
        return said.rpartition("-- cursor: ")[2].strip()

    def records(self) -> dict[str, str]:
        """The files of all guests' records, with their content."""
        folder = self.host.path("/run/cgw/guests")
        return {path.name: path.read_text() for path in sorted(folder.iterdir())}

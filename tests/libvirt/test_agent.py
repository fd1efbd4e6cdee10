"""The agent beside a real libvirtd: nobody types `cgw sync`, and the ports follow."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.full import extended
from tests.lab.domain import BRIDGE, guest_mac, nat_network_xml
from tests.lab.lab import open_lab
from tests.lab.network import CLIENT_ADDRESS
from tests.libvirt.conftest import SUITES
from tests.libvirt.hypervisor import Guest, Hypervisor
from tests.libvirt.waiting import eventually
from tests.netns.specs import port_forward

pytestmark = pytest.mark.libvirt

NETWORK = "default"
#: What dnsmasq's helper of libvirt writes for the network's bridge.
LEASE_FILE = "/var/lib/libvirt/dnsmasq/virbr0.status"
PORT = 8080
SEEN = f"web1 saw {CLIENT_ADDRESS}"
KEY = ("urn:cgw-hooks:1", "--key", "cgw", "--live")


class AgentHost(Hypervisor):
    """A host with libvirt's default network, without config file, where the agent runs."""

    agent: "subprocess.Popen[str] | None" = None

    def start_agent(self) -> None:
        """Start the agent; hook calls are handed to it when this returns."""
        self.agent = self.node.popen(["cgw", "agent"])
        assert eventually(self.node.path("/run/cgw/agent.sock").is_socket)

    def end_agent(self) -> None:
        """End the agent by SIGTERM."""
        assert self.agent
        pid = self.node.run(["pgrep", "-x", "cgw-agent"]).stdout.split()[0]
        self.node.run(["kill", pid])
        assert 0 == self.agent.wait(timeout=60)
        for stream in (self.agent.stdin, self.agent.stdout, self.agent.stderr):
            if stream:
                stream.close()
        self.agent = None

    def answers(self, port: int = PORT, guest: str = "web1") -> bool:
        """Whether the guest answers the client at this port of the node, sooner or later."""
        return eventually(lambda: self.asks(port) == f"{guest} saw {CLIENT_ADDRESS}")

    def is_refused(self, port: int = PORT) -> bool:
        """Whether the node itself refuses the client, sooner or later."""
        return eventually(lambda: self.is_closed(port))

    def annotate(self, *publish: str) -> None:
        """Change the annotation of the running web1 as `virsh metadata` does it; or remove it."""
        if publish:
            xml = f"<publish>{''.join(map(port_forward, publish))}</publish>".replace("cgw:", "")
            self.node.virsh("metadata", "web1", *KEY, "--set", xml)
        else:
            self.node.virsh("metadata", "web1", *KEY, "--remove")


@pytest.fixture(scope="module", params=SUITES)
def agent_host(request: pytest.FixtureRequest) -> Iterator[AgentHost]:
    with open_lab(request.param) as lab:
        host = AgentHost(lab)
        host.node.start_network(NETWORK, nat_network_xml(NETWORK))
        host.start_agent()
        yield host
        host.end_agent()


@pytest.fixture(scope="module")
def web1(agent_host: AgentHost) -> Iterator[Guest]:
    """A running guest of the network; its address is a lease. It publishes nothing at first."""
    guest = agent_host.guest("web1", interface=NETWORK, publish=None)
    guest.start()
    yield guest
    guest.remove()
    assert eventually(lambda: agent_host.files() == [])


def test_a_dhcp_guest_is_published_with_its_first_lease_and_closed_when_it_stops(
    agent_host: AgentHost, record_property: Callable[[str, object], None]
) -> None:
    guest = agent_host.guest(
        "web1", f"{PORT}:80", octet=99, interface=NETWORK, publish_address=None
    )
    leases = agent_host.node.path(LEASE_FILE)
    guest.start()
    assert eventually(lambda: leases.exists() and guest_mac(99) in leases.read_text())
    assert eventually(lambda: f". {PORT} : " in agent_host.ruleset())
    record_property("seconds from the lease to the port", time.time() - leases.stat().st_mtime)
    assert agent_host.answers()
    assert "published" == agent_host.status()["web1"]["state"]
    guest.destroy()
    assert agent_host.is_refused()
    guest.remove()
    assert eventually(lambda: agent_host.files() == [])


def test_live_metadata_is_followed(agent_host: AgentHost, web1: Guest) -> None:
    assert web1.state() == "running"
    for _ in range(2):
        agent_host.annotate(f"{PORT}:80")
        assert agent_host.answers()
        agent_host.annotate("8081:80")
        assert agent_host.is_refused(PORT)
        assert agent_host.answers(8081)
        agent_host.annotate()
        assert agent_host.is_refused(8081)
    assert eventually(lambda: agent_host.files() == [])


def test_an_invalid_live_annotation_is_told_and_closes_nothing(
    agent_host: AgentHost, web1: Guest
) -> None:
    assert web1.state() == "running"
    agent_host.annotate(f"{PORT}:80")
    assert agent_host.answers()
    xml = '<publish><portForward proto="icmp"><range start="1"/></portForward></publish>'
    agent_host.node.virsh("metadata", "web1", *KEY, "--set", xml)
    assert eventually(lambda: "icmp" in str(agent_host.status()["web1"]["problem"]))
    assert agent_host.asks(PORT) == SEEN
    agent_host.annotate()
    assert agent_host.is_refused()


def test_a_flush_is_healed(agent_host: AgentHost, web1: Guest) -> None:
    assert web1.state() == "running"
    agent_host.annotate(f"{PORT}:80")
    assert agent_host.answers()
    agent_host.shell("nft delete table inet cgw")
    assert agent_host.answers()
    agent_host.shell("iptables -F FORWARD")  # with our exception in it
    agent_host.node.reload_libvirtd()
    assert agent_host.answers()
    agent_host.annotate()
    assert agent_host.is_refused()


@pytest.mark.parametrize(
    "how",
    [extended("restarted"), "killed", extended("stopped")],
)
def test_libvirtd_may_go_and_come(agent_host: AgentHost, web1: Guest, how: str) -> None:
    node = agent_host.node
    agent_host.annotate(f"{PORT}:80")
    assert agent_host.answers()
    if how == "restarted":
        node.restart_libvirtd()
    elif how == "killed":
        node.kill_libvirtd()
    else:
        node.stop_libvirtd()
    agent_host.shell("nft delete table inet cgw")
    assert agent_host.answers()
    if how != "restarted":
        node.start_libvirtd()
    assert web1.state() == "running"
    agent_host.annotate("8081:80")
    assert agent_host.answers(8081)
    agent_host.annotate()
    assert agent_host.is_refused(8081)


@pytest.mark.extended
def test_a_hung_libvirtd_hinders_no_repair(agent_host: AgentHost, web1: Guest) -> None:
    agent_host.annotate(f"{PORT}:80")
    assert agent_host.answers()
    pid = agent_host.node.path("/run/libvirtd.pid").read_text().strip()
    agent_host.node.run(["kill", f"-{signal.SIGSTOP.name}", pid])
    try:
        agent_host.shell("nft delete table inet cgw")
        assert agent_host.answers()
    finally:
        agent_host.node.run(["kill", f"-{signal.SIGCONT.name}", pid])
    agent_host.annotate()
    assert agent_host.is_refused()
    assert web1.state() == "running"


def test_a_guest_on_a_plain_bridge_is_published_at_the_address_that_it_uses(
    agent_host: AgentHost,
) -> None:
    guest = agent_host.guest("web2", f"{PORT}:80", octet=98, publish_address=None)
    guest.start()
    assert agent_host.answers(guest="web2")
    assert "10.5.5.98" == agent_host.status()["web2"]["target_address"]
    guest.remove()
    assert agent_host.is_refused()


def test_an_interface_that_is_plugged_in_is_published(agent_host: AgentHost) -> None:
    """The guest has no network device at first that libvirt gives an address to."""
    guest = agent_host.guest(
        "web3", f"{PORT}:80", octet=97, publish_address=None, interface=[BRIDGE], addresses="none"
    )
    guest.start()
    interface = (
        f"<interface type='network'><mac address='{guest_mac(97, 1)}'/><source network='default'/>"
        "<model type='virtio'/><rom enabled='no'/></interface>"
    )
    agent_host.node.virsh("attach-device", "web3", "/dev/stdin", "--live", input=interface)
    record = f"/run/cgw/guests/qemu-{guest.xml.partition('<uuid>')[2].partition('<')[0]}.json"
    assert eventually(lambda: guest_mac(97, 1) in agent_host.node.path(record).read_text())
    guest.remove()
    assert agent_host.is_refused()


def test_the_agent_serves_while_guests_start_one_after_the_other(agent_host: AgentHost) -> None:
    """No deadlock: the agent asks libvirt while libvirt waits for hooks."""
    guests = [
        agent_host.guest(f"many{n}", f"{9000 + n}:80", interface=NETWORK, publish_address=None)
        for n in range(3)
    ]
    for _ in range(2):
        for guest in guests:
            guest.start()
        for guest in guests:
            guest.destroy()
    for guest in guests:
        guest.remove()
    assert eventually(lambda: agent_host.files() == [])

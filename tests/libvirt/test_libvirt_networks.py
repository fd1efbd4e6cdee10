"""Guests of libvirt's own NAT networks: published through libvirt's firewall, without config."""

from collections.abc import Callable, Iterator

import pytest

from tests.full import extended
from tests.lab.domain import guest_mac, nat_network_xml
from tests.lab.lab import open_lab
from tests.lab.network import CLIENT_ADDRESS
from tests.libvirt.hypervisor import Guest, Hypervisor
from tests.libvirt.waiting import eventually

pytestmark = pytest.mark.libvirt

NETWORK = "default"
BRIDGE = "virbr0"
OTHER_BRIDGE = "virbr-other"
#: Of a guest by its number: the addresses of host entries, which its interface then leases.
RESERVED = {11: "192.168.123.77", 12: "192.168.123.78"}
UNRESERVED_GUEST = 13
PORT = 8080
SEEN = f"web1 saw {CLIENT_ADDRESS}"
#: The suite, and what libvirt of this suite makes its firewall with.
BACKENDS = [
    pytest.param(("bookworm", "iptables"), id="bookworm-iptables"),
    pytest.param(("trixie", "iptables"), id="trixie-iptables", marks=pytest.mark.extended),
    pytest.param(("trixie", "nftables"), id="trixie-nftables"),
]
EXCEPTIONS = {
    "iptables": "iptables -S FORWARD; ip6tables -S FORWARD",
    "nftables": "for ip in ip ip6; do nft list chain $ip libvirt_network forward; done",
}
#: What puts libvirt's reject in front of our exception.
HARMS = {
    "iptables": """
        for tool in iptables ip6tables; do
            $tool -D FORWARD -j LIBVIRT_FWI
            $tool -I FORWARD -j LIBVIRT_FWI
        done
    """,
    "nftables": """
        for ip in ip ip6; do
            rules=$(nft -a list chain $ip libvirt_network forward)
            handle=$(echo "$rules" | sed -n 's/.*jump guest_input # handle //p')
            nft delete rule $ip libvirt_network forward handle $handle
            nft insert rule $ip libvirt_network forward counter jump guest_input
        done
    """,
}
#: What takes libvirt's jump away, which it makes anew when it starts.
LOSSES = {
    "iptables": "for tool in iptables ip6tables; do $tool -D FORWARD -j LIBVIRT_FWI; done",
    "nftables": "for ip in ip ip6; do nft delete table $ip libvirt_network; done",
}
CHAINS = {
    "iptables": ("filter", "LIBVIRT_FWI"),
    "nftables": ("libvirt_network", "guest_input"),
}


class NatHost(Hypervisor):
    """A host without config file, with libvirt's default network."""

    backend = ""

    def define_on_network(self, name: str, octet: int, port: int) -> Guest:
        """Define a guest of the network that says no address of its own."""
        publish = f"{port}:80"
        return self.guest(name, publish, octet=octet, interface=NETWORK, publish_address=None)

    def exceptions(self) -> list[str]:
        """Our rules in libvirt's firewall."""
        listing = self.node.run(["sh", "-ec", EXCEPTIONS[self.backend]]).stdout
        return [line.strip() for line in listing.splitlines() if "cgw-hooks" in line]

    def libvirts_rules(self) -> set[str]:
        """The handles of libvirt's own rules that keep others from the network's guests."""
        listing = self.node.run(["nft", "-a", "list", "chain", "ip", *CHAINS[self.backend]]).stdout
        rules = [line for line in listing.splitlines() if BRIDGE in line]
        return {rule.rpartition("# handle ")[2] for rule in rules}

    def traces(self) -> tuple[str, list[str]]:
        """Everything that a guest may leave; rules in no order, since libvirt's may change."""
        ruleset, files = super().traces()
        return "\n".join(sorted(ruleset.splitlines())), files

    def rejects(self, address: str) -> bool:
        """Whether libvirt's firewall keeps the client from a guest's own address."""
        return not self.client.tcp(address, 80).answered

    def has_lease(self, octet: int) -> bool:
        """Whether libvirt knows a lease of the guest with this number."""
        return guest_mac(octet) in self.node.virsh("net-dhcp-leases", NETWORK).stdout

    def plug_in(self, guest: Guest) -> None:
        """Join a guest again to its network's bridge, which was away."""
        device = self.node.virsh("domiflist", guest.name).stdout.split()[0]
        self.node.network.ip(f"link set {device} master {BRIDGE}")


@pytest.fixture(scope="module", params=BACKENDS)
def nat_host(request: pytest.FixtureRequest) -> Iterator[NatHost]:
    suite, backend = request.param
    with open_lab(suite, firewall_backend=backend if suite != "bookworm" else None) as lab:
        host = NatHost(lab)
        host.backend = backend
        hosts = [(guest, int(address.rpartition(".")[2])) for guest, address in RESERVED.items()]
        host.node.start_network(NETWORK, nat_network_xml(NETWORK, hosts=hosts))
        lab.client.ip(f"route add 192.168.123.0/24 via {host.node.addresses.uplink}")
        yield host


@pytest.fixture
def guest(nat_host: NatHost, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest of the network, after which nothing of it may be left; by default the reserved."""
    before = nat_host.traces()
    octet = getattr(request, "param", 11)
    made = nat_host.define_on_network("web1", octet, PORT)
    yield made
    nat_host.remove_guests()
    assert before == nat_host.traces()
    assert nat_host.exceptions() == []
    assert nat_host.hook_output() == ""


def test_a_guest_with_a_host_entry_is_published_when_it_starts(
    nat_host: NatHost, guest: Guest
) -> None:
    guest.start()
    assert nat_host.asks_until_answered(PORT) == SEEN
    assert nat_host.status()["web1"]["target_address"] == RESERVED[11]
    assert nat_host.exceptions()
    assert nat_host.rejects(RESERVED[11])
    guest.destroy()
    assert nat_host.is_closed(PORT)
    assert nat_host.exceptions() == []


@pytest.mark.parametrize("guest", [UNRESERVED_GUEST], indirect=True)
def test_a_guest_without_host_entry_is_published_once_it_has_a_lease(
    nat_host: NatHost, guest: Guest
) -> None:
    guest.start()
    row = nat_host.status()["web1"]
    assert (row["state"], row["target_address"]) == ("no address yet", None)
    assert row["problem"]["message"] == "no lease of the guest is known"
    assert nat_host.exceptions() == []
    assert eventually(lambda: nat_host.has_lease(UNRESERVED_GUEST), within=300)
    assert nat_host.is_closed(PORT)
    nat_host.cgw("sync")
    assert nat_host.status()["web1"]["state"] == "published"
    assert nat_host.asks_until_answered(PORT) == SEEN
    guest.destroy()
    assert nat_host.is_closed(PORT)


def are_made_anew(before: set[str], now: set[str]) -> bool:
    return len(before) == len(now) > 0 and before.isdisjoint(now)


def reloads(nat_host: NatHost, _guest: Guest) -> None:
    nat_host.node.reload_libvirtd()


def restarts(nat_host: NatHost, guest: Guest) -> None:
    nat_host.node.restart_libvirtd()
    assert guest.is_called("reconnect")


def restarts_the_network(nat_host: NatHost, guest: Guest) -> None:
    nat_host.shell(f"virsh net-destroy {NETWORK}; virsh net-start {NETWORK}")
    nat_host.plug_in(guest)


@pytest.mark.parametrize(
    "rebuild",
    [
        reloads,
        extended(restarts),
        pytest.param(restarts_the_network, marks=pytest.mark.on_both_suites),
    ],
)
def test_when_libvirt_rebuilds_its_firewall_the_port_stays_open(
    nat_host: NatHost, guest: Guest, rebuild: Callable[[NatHost, Guest], None]
) -> None:
    """No hook tells of a reload or of a network's restart, and nobody runs cgw sync."""
    guest.start()
    assert nat_host.asks_until_answered(PORT) == SEEN
    admitted, theirs = nat_host.exceptions(), nat_host.libvirts_rules()
    rebuild(nat_host, guest)
    assert eventually(lambda: are_made_anew(theirs, nat_host.libvirts_rules()), within=300)
    assert nat_host.asks(PORT) == SEEN
    assert nat_host.rejects(RESERVED[11])
    assert admitted == nat_host.exceptions()


def test_the_exception_stays_until_the_last_guest_has_gone(nat_host: NatHost, guest: Guest) -> None:
    other = nat_host.define_on_network("web2", 12, PORT + 1)
    other.start()
    guest.start()
    assert nat_host.asks_until_answered(PORT + 1) == f"web2 saw {CLIENT_ADDRESS}"
    other.destroy()
    assert nat_host.exceptions()
    assert nat_host.asks_until_answered(PORT) == SEEN


@pytest.mark.on_both_suites
def test_an_exception_that_no_longer_comes_first_is_told_and_mended_by_sync(
    nat_host: NatHost, guest: Guest
) -> None:
    guest.start()
    assert nat_host.asks_until_answered(PORT) == SEEN
    admitted = nat_host.exceptions()
    nat_host.shell(HARMS[nat_host.backend])
    assert nat_host.is_closed(PORT)
    row = nat_host.status()["web1"]
    assert row["state"] == "failed"
    assert row["problem"]["code"] == "firewall"
    nat_host.cgw("sync")
    assert nat_host.asks(PORT) == SEEN
    assert nat_host.rejects(RESERVED[11])
    assert admitted == nat_host.exceptions()
    assert nat_host.status()["web1"]["state"] == "published"


@pytest.mark.on_both_suites
def test_when_libvirtd_restarts_the_hook_mends_the_exception(
    nat_host: NatHost, guest: Guest
) -> None:
    """Without its jump, or its table, libvirt makes them anew: in front of what is there."""
    guest.start()
    assert nat_host.asks_until_answered(PORT) == SEEN
    admitted = nat_host.exceptions()
    nat_host.shell(LOSSES[nat_host.backend])
    nat_host.node.restart_libvirtd()
    assert guest.is_called("reconnect")
    assert eventually(lambda: nat_host.asks(PORT) == SEEN, within=300)
    assert nat_host.rejects(RESERVED[11])
    assert admitted == nat_host.exceptions()


def test_a_running_guest_that_changes_networks_takes_its_exception_along(
    nat_host: NatHost, guest: Guest
) -> None:
    """No hook tells of virsh update-device; cgw sync follows it."""
    other = nat_network_xml("other", third_octet=124, hosts=[(11, 77)])
    nat_host.node.start_network("other", other)
    try:
        guest.start()
        assert nat_host.asks_until_answered(PORT) == SEEN
        before = nat_host.exceptions()
        interface = f"""
            <interface type='network'><mac address='{guest_mac(11)}'/>
            <source network='other'/><model type='virtio'/><rom enabled='no'/></interface>
        """
        nat_host.node.virsh("update-device", "web1", "/dev/stdin", "--live", input=interface)
        nat_host.cgw("sync")
        assert [rule.replace(BRIDGE, OTHER_BRIDGE) for rule in before] == nat_host.exceptions()
        assert nat_host.status()["web1"]["target_address"] == "192.168.124.77"
        guest.destroy()
        assert nat_host.exceptions() == []
    finally:
        nat_host.shell("virsh net-destroy other; virsh net-undefine other")

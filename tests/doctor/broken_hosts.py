"""Ways to break a host for real, so that a guest's port no longer answers."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.domain import guest_mac
from tests.lab.network import GUEST_BRIDGE, UPLINK_BRIDGE
from tests.netns.asker import Asker
from tests.netns.configs import FULL_NAT, NODE, NODE_AMONG_GUESTS, NONE
from tests.netns.node import OUR_TABLE, Node
from tests.netns.test_firewall import iptables_backend, nftables_backend

PORT = 2202
FAR_CLIENT = "198.51.100.7"


@dataclass(frozen=True)
class Fault:
    """One way to break a host that publishes `PORT` of a guest."""

    #: What is done to the host.
    make: Callable[[Node], None]
    #: The check that must fail first.
    check: str
    #: What the message must name.
    names: tuple[str, ...] = ()
    config: str = NONE
    family: int = 4
    #: Whether `cgw node up` is run before.
    is_gateway: bool = False
    #: What the host has before its guest starts.
    prepare: Callable[[Node, Asker], None] | None = None
    #: The client that the guest sees, if it is not the usual one.
    sees: str = ""
    #: Whether the guest is on a libvirt network.
    is_in_network: bool = False
    #: Whether another fault in `make test` proves the core of it.
    is_extended: bool = False


def _run(*lines: str) -> Callable[[Node], None]:
    def make(node: Node) -> None:
        for line in lines:
            node.namespace.run(["sh", "-ec", line])

    return make


def _nft(text: str) -> Callable[[Node], None]:
    def make(node: Node) -> None:
        node.nft(text)

    return make


def _table(name: str, hook: str, *rules: str, others: str = "") -> Callable[[Node], None]:
    """A stranger's table with the chain `f`."""
    lines = "\n".join(rules)
    return _nft(f"table {name} {{\n{others}\nchain f {{\ntype filter hook {hook};\n{lines}\n}}\n}}")


def _sysctl(name: str, value: str) -> Callable[[Node], None]:
    return lambda node: node.namespace.sysctl({name: value})


def _docker(tool: str) -> str:
    """The FORWARD chain that Docker makes: policy DROP, and its own network accepted."""
    return "\n".join(
        f"{tool} {rule}"
        for rule in (
            "-P FORWARD DROP",
            "-N DOCKER", "-N DOCKER-USER", "-N DOCKER-ISOLATION-STAGE-1",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
            "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A FORWARD -o docker0 -j DOCKER",
            "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
            "-A FORWARD -i docker0 -o docker0 -j ACCEPT",
            "-A DOCKER-ISOLATION-STAGE-1 -j RETURN",
            "-A DOCKER-USER -j RETURN",
        )
    )  # fmt: skip


def _second_uplink(node: Node, client: Asker) -> None:
    """A client behind a router, and a second link by which its answers go."""
    node.namespace.ip(
        f"link add up2 type veth peer name up2 netns {client.namespace.name}\n"
        "link set up2 up\naddress add 192.168.99.2/24 dev up2\n"
    )
    client.namespace.ip(
        "link set up2 up\naddress add 192.168.99.1/24 dev up2\n"
        f"address add {FAR_CLIENT}/32 dev lo\n"
        f"route add {NODE[4]}/32 dev uplink0 src {FAR_CLIENT}\n"
    )
    node.namespace.ip(f"route add {FAR_CLIENT}/32 via 192.168.99.1 dev up2\n")
    loose = {f"net/ipv4/conf/{name}/rp_filter": "0" for name in ("all", "up2", "uplink0")}
    client.namespace.sysctl({**loose, "net/ipv4/conf/uplink0/arp_announce": "2"})
    names = ("all", "up2", UPLINK_BRIDGE)
    node.namespace.sysctl({f"net/ipv4/conf/{name}/rp_filter": "0" for name in names})


def _without_exception(node: Node) -> None:
    """What `iptables -F FORWARD` leaves when libvirt has made its jump anew."""
    node.namespace.run(["iptables", "-F", "FORWARD"])
    node.namespace.run(["iptables", "-A", "FORWARD", "-j", "LIBVIRT_FWI"])


FAULTS = {
    "IPv4 forwarding off": Fault(
        _sysctl("net/ipv4/ip_forward", "0"), "forwarding", ("IPv4", UPLINK_BRIDGE)
    ),
    "forwarding off on the uplink": Fault(
        _sysctl(f"net/ipv4/conf/{UPLINK_BRIDGE}/forwarding", "0"), "forwarding", (UPLINK_BRIDGE,),
        is_extended=True,
    ),
    "IPv6 forwarding off": Fault(
        _sysctl("net/ipv6/conf/all/forwarding", "0"), "forwarding", ("IPv6",), family=6
    ),
    "a gateway's forwarding off": Fault(
        _sysctl(f"net/ipv4/conf/{GUEST_BRIDGE}/forwarding", "0"),
        "forwarding", (GUEST_BRIDGE,), FULL_NAT, is_gateway=True,
        is_extended=True,
    ),
    "the ruleset flushed": Fault(_nft("flush ruleset\n"), "rules", (OUR_TABLE,)),
    "the table dormant": Fault(
        _nft(f"add table {OUR_TABLE} {{ flags dormant; }}\n"), "rules", ("dormant",),
        is_extended=True,
    ),
    "the elements gone": Fault(
        _nft(f"flush map {OUR_TABLE} published4\n"), "rules", (f"*:{PORT}/tcp",),
        is_extended=True,
    ),
    "Docker": Fault(
        _run(_docker("iptables")), "other-firewalls", ("filter", "FORWARD", "policy drop")
    ),
    "Docker and IPv6": Fault(
        _run(_docker("ip6tables")), "other-firewalls", ("filter", "FORWARD"), family=6,
        is_extended=True,
    ),
    "Docker by iptables-legacy": Fault(
        _run(_docker("iptables-legacy")), "other-firewalls", ("iptables-legacy", "FORWARD")
    ),
    "a rule in DOCKER-USER": Fault(
        _run(
            _docker("iptables"),
            f"iptables -I DOCKER-USER -i {UPLINK_BRIDGE} -j DROP",
            "iptables -P FORWARD ACCEPT",
        ),
        "other-firewalls", ("DOCKER-USER", f"-i {UPLINK_BRIDGE} -j DROP"),
    ),
    "a rule in front of the chains of ufw": Fault(
        _run(
            "iptables -N ufw-user-forward",
            f"iptables -A FORWARD -i {UPLINK_BRIDGE} -j REJECT",
            "iptables -A FORWARD -j ufw-user-forward",
        ),
        "other-firewalls", ("FORWARD", "REJECT"), is_extended=True,
    ),
    "a stranger's policy": Fault(
        _table(
            "inet stranger",
            "forward priority 10; policy drop",
            "ct state established,related accept",
        ),
        "other-firewalls", ("inet stranger", "chain f", "policy drop"),
    ),
    "a stranger's reject": Fault(
        _table(
            "ip stranger", "forward priority -10", f'oifname vmap {{ "{GUEST_BRIDGE}" : jump g }}',
            others="chain g {\ntcp dport 22 counter reject\n}",
        ),
        "other-firewalls", ("ip stranger", "in chain g"),
    ),
    "a rule before the translation": Fault(
        _table(
            "inet stranger", "prerouting priority -300",
            f"iifname {UPLINK_BRIDGE} meta l4proto tcp th dport 1024-65535 drop",
        ),
        "other-firewalls", ("inet stranger", "prerouting"),
    ),
    "a rule that drops the answers": Fault(
        _table(
            "inet stranger", "forward priority 0", f'iifname "{GUEST_BRIDGE}" tcp sport 22 drop'
        ),
        "other-firewalls", ("answers of guests",),
    ),
    "a rule behind the routing": Fault(
        _table(
            "ip6 stranger", "postrouting priority 0",
            f'oifname "{GUEST_BRIDGE}" ip6 daddr fd00:5::/64 tcp dport 22 drop',
        ),
        "other-firewalls", ("ip6 stranger", "postrouting"), family=6,
        is_extended=True,
    ),
    "a rule of the uplink's bridge": Fault(
        _table("bridge stranger", "prerouting priority -300", f"tcp dport {PORT} drop"),
        "other-firewalls", ("bridge stranger", "prerouting"),
        is_extended=True,
    ),
    "a rule of the guest's bridge": Fault(
        _table("bridge stranger", "output priority 0", "ip6 daddr fd00:5::11 tcp dport 22 drop"),
        "other-firewalls", ("bridge stranger", "output"), family=6,
    ),
    "a rule of the guest's bridge for answers": Fault(
        _table("bridge stranger", "prerouting priority -300", "tcp sport 22 drop"),
        "other-firewalls", ("bridge stranger", "the answers of guests"),
        is_extended=True,
    ),
    "a rule of the uplink's bridge for answers": Fault(
        _table("bridge stranger", "postrouting priority 0", f"tcp sport {PORT} drop"),
        "other-firewalls", ("bridge stranger", "postrouting", "the answers"),
        is_extended=True,
    ),
    "the node address lost": Fault(
        _run(f"ip address flush dev {GUEST_BRIDGE}"),
        "gateway", (NODE_AMONG_GUESTS[4],), FULL_NAT, is_gateway=True,
    ),
    "libvirt's firewall without the exception": Fault(
        _without_exception, "libvirt-firewall", (GUEST_BRIDGE, "libvirt's firewall"),
        prepare=lambda node, _: iptables_backend(node), is_in_network=True,
    ),
    "libvirt's nftables in front of the exception": Fault(
        _nft("insert rule ip libvirt_network forward counter jump guest_input\n"),
        "libvirt-firewall", (GUEST_BRIDGE,),
        prepare=lambda node, _: nftables_backend(node), is_in_network=True,
    ),
    "libvirt's firewall and a guest on its bridge by hand": Fault(
        iptables_backend, "other-firewalls", ("LIBVIRT_FWI", "REJECT"),
        is_extended=True,
    ),
    "a strict reverse path": Fault(
        _sysctl(f"net/ipv4/conf/{UPLINK_BRIDGE}/rp_filter", "1"),
        "reverse-path", ("rp_filter", UPLINK_BRIDGE), prepare=_second_uplink, sees=FAR_CLIENT,
    ),
    "the guest bridge down": Fault(
        _run(f"ip link set {GUEST_BRIDGE} down"), "device", (GUEST_BRIDGE, "down")
    ),
    "a gateway's bridge down, and IPv6": Fault(
        _run(f"ip link set {GUEST_BRIDGE} down"),
        "device", (GUEST_BRIDGE, "down"), FULL_NAT, is_gateway=True, family=6,
        is_extended=True,
    ),
    "a route of somebody's to the guest": Fault(
        _run("ip route add 10.5.5.11/32 via 192.168.122.200"),
        "route", ("router 192.168.122.200", "10.5.5.11"),
    ),
    "an unreachable guest": Fault(
        _run("ip -6 route add unreachable fd00:5::11 metric 10"),
        "route", ("unreachable",), family=6,
        is_extended=True,
    ),
    "a neighbour that was entered by hand": Fault(
        _run(
            f"ip neigh replace 10.5.5.11 lladdr {guest_mac(99)} nud permanent dev {GUEST_BRIDGE}"
        ),
        "neighbour-entry", (guest_mac(99), guest_mac(11)),
    ),
}  # fmt: skip

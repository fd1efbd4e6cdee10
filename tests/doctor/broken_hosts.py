"""Ways to break a host for real, so that a guest's port no longer answers."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.network import GUEST_BRIDGE, UPLINK_BRIDGE
from tests.netns.configs import FULL_NAT, GATEWAY, NODE_AMONG_GUESTS, NONE
from tests.netns.node import OUR_TABLE, Node

PORT = 2202


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
    prepare: Callable[[Node], None] | None = None


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


FAULTS = {
    "IPv4 forwarding off": Fault(
        _sysctl("net/ipv4/ip_forward", "0"), "forwarding", ("IPv4", UPLINK_BRIDGE)
    ),
    "forwarding off on the uplink": Fault(
        _sysctl(f"net/ipv4/conf/{UPLINK_BRIDGE}/forwarding", "0"), "forwarding", (UPLINK_BRIDGE,)
    ),
    "IPv6 forwarding off": Fault(
        _sysctl("net/ipv6/conf/all/forwarding", "0"), "forwarding", ("IPv6",), family=6
    ),
    "a gateway's forwarding off": Fault(
        _sysctl(f"net/ipv4/conf/{GUEST_BRIDGE}/forwarding", "0"),
        "forwarding", (GUEST_BRIDGE,), FULL_NAT, is_gateway=True,
    ),
    "the ruleset flushed": Fault(_nft("flush ruleset\n"), "rules", (OUR_TABLE,)),
    "the table dormant": Fault(
        _nft(f"add table {OUR_TABLE} {{ flags dormant; }}\n"), "rules", ("dormant",)
    ),
    "the elements gone": Fault(
        _nft(f"flush map {OUR_TABLE} published4\n"), "rules", (f"*:{PORT}/tcp",)
    ),
    "Docker": Fault(
        _run(_docker("iptables")), "other-firewalls", ("filter", "FORWARD", "policy drop")
    ),
    "Docker and IPv6": Fault(
        _run(_docker("ip6tables")), "other-firewalls", ("filter", "FORWARD"), family=6
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
    ),
    "the gateway address lost": Fault(
        _run(f"ip address del {GATEWAY[4]}/24 dev {GUEST_BRIDGE}"),
        "gateway", (GATEWAY[4],), is_gateway=True,
    ),
    "the node address lost": Fault(
        _run(f"ip address flush dev {GUEST_BRIDGE}"),
        "gateway", (NODE_AMONG_GUESTS[4],), FULL_NAT, is_gateway=True,
    ),
}  # fmt: skip
del FAULTS["the gateway address lost"]

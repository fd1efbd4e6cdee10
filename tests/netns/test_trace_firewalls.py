"""`cgw trace` where another program drops the packet: its rule is named, and the cure works.

The rules stand here as those programs make them. tests/systemd has the programs themselves.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NONE
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node
from tests.netns.parameters import families
from tests.netns.test_firewall import BACKENDS, GuestMaker, network_guest
from tests.netns.test_foreign_forwards import GUEST
from tests.netns.tracing import trace

pytestmark = pytest.mark.netns

__all__ = ["network_guest"]

COMMAND = {4: "iptables", 6: "ip6tables"}
FAMILY = {4: "ip", 6: "ip6"}


class Obstacle(NamedTuple):
    """A rule of another program, and what a trace says of it."""

    rules: Callable[[int], str]
    #: What the last line has.
    said: str
    #: The beginning of its cure.
    cure: str
    #: Whether the guest's answer is what ends there.
    is_answer: bool = False


def iptables(*rules: str) -> Callable[[int], str]:
    """Rules that are made with iptables, in order."""
    return lambda family: "\n".join(f"{COMMAND[family]} {rule}" for rule in rules)


def nft(table: str, chain: str, rule: str) -> Callable[[int], str]:
    """A table of somebody's with one chain."""
    return lambda family: (
        f"nft 'table {table} theirs {{ chain theirs {{ type filter hook {chain}; "
        f"{rule.format(ip=FAMILY[family], client=CLIENT[family])}; }}; }}'"
    )


DOCKER = (
    "-N DOCKER-USER", "-N DOCKER-FORWARD", "-N DOCKER-CT", "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER-FORWARD", "-A DOCKER-FORWARD -j DOCKER-CT",
)  # fmt: skip
#: The chains of ufw's default rules (ufw-init-functions) that a packet meets which it forwards.
UFW = (
    "-N ufw-before-forward", "-N ufw-after-forward", "-N ufw-user-forward",
    "-N ufw-skip-to-policy-forward", "-A FORWARD -j ufw-before-forward",
    "-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A ufw-before-forward -j ufw-user-forward", "-A FORWARD -j ufw-after-forward",
)  # fmt: skip
OBSTACLES = {
    "the policy of FORWARD": Obstacle(
        iptables("-P FORWARD DROP"),
        "{ip} filter FORWARD has dropped the packet, by its policy",
        "{iptables} -I FORWARD -p tcp -m conntrack --ctstate DNAT --ctreplsrc {guest} "
        "--ctreplsrcport 80 -j ACCEPT",
    ),
    "a rule of iptables": Obstacle(
        iptables("-A FORWARD -m mark --mark 7 -j ACCEPT", "-A FORWARD -p tcp -j REJECT"),
        "{ip} filter FORWARD has rejected the packet, by `-A FORWARD -p tcp -j REJECT",
        "{iptables} -I FORWARD ",
    ),
    "Docker's policy": Obstacle(
        iptables(*DOCKER, "-P FORWARD DROP"),
        "{ip} filter FORWARD has dropped the packet, by its policy",
        "{iptables} -I DOCKER-USER -p tcp -m conntrack --ctstate DNAT --ctreplsrc {guest} ",
    ),
    "a rule in DOCKER-USER": Obstacle(
        iptables(*DOCKER, "-A DOCKER-USER -i xenbr0 -j DROP"),
        "{ip} filter FORWARD has dropped the packet, by `-A DOCKER-USER -i xenbr0 -j DROP`",
        "{iptables} -I DOCKER-USER ",
    ),
    "iptables, before translation": Obstacle(
        iptables("-t raw -A PREROUTING -p tcp --dport 8080 -j DROP"),
        "{ip} raw PREROUTING has dropped the packet, by `-A PREROUTING -p tcp -m tcp --dport 8080",
        "{iptables} -t raw -I PREROUTING -p tcp -d {node} --dport 8080 -j ACCEPT",
    ),
    "a table that forwards nothing": Obstacle(
        nft("inet", "forward priority 10", "policy drop"),
        "inet theirs theirs has dropped the packet, by its policy",
        "nft insert rule inet theirs theirs meta l4proto tcp ct status dnat ct reply {ip} saddr "
        "{guest} ct reply proto-src 80 accept",
    ),
    "a rule of nft": Obstacle(
        nft("inet", "prerouting priority -350", "{ip} saddr {client} tcp dport 8080 drop"),
        "inet theirs theirs has dropped the packet, by `{ip} saddr {client} tcp dport 8080 drop`",
        "nft insert rule inet theirs theirs {ip} daddr {node} tcp dport 8080 accept",
    ),
    "a rule after translation": Obstacle(
        nft("inet", "postrouting priority 200", "tcp dport 80 counter drop"),
        "inet theirs theirs has dropped the packet, by `tcp dport 80 drop`",
        "nft insert rule inet theirs theirs meta l4proto tcp ct status dnat ct reply {ip} saddr "
        "{guest} ct reply proto-src 80 accept",
    ),
    "a rule of a bridge": Obstacle(
        nft("bridge", "prerouting priority -300", "tcp dport 8080 drop"),
        "bridge theirs theirs has dropped the packet, by `tcp dport 8080 drop`",
        "nft insert rule bridge theirs theirs {ip} daddr {node} tcp dport 8080 accept",
    ),
    "a rule of the guest's bridge": Obstacle(
        nft("bridge", "output priority 0", "oifname guest11 tcp dport 80 drop"),
        'bridge theirs theirs has dropped the packet, by `oifname "guest11" tcp dport 80 drop`',
        "nft insert rule bridge theirs theirs {ip} daddr {guest} tcp dport 80 accept",
    ),
    "a rule for answers": Obstacle(
        iptables("-A FORWARD -i guestbr0 -j DROP"),
        "{ip} filter FORWARD has dropped the answer, by `-A FORWARD -i guestbr0 -j DROP`",
        "{iptables} -I FORWARD -p tcp -m conntrack --ctstate DNAT --ctreplsrc {guest} ",
        is_answer=True,
    ),
    "a rule of a bridge for answers": Obstacle(
        nft("bridge", "prerouting priority -300", "tcp sport 80 drop"),
        "bridge theirs theirs has dropped the answer, by `tcp sport 80 drop`",
        "nft insert rule bridge theirs theirs {ip} saddr {guest} tcp sport 80 accept",
        is_answer=True,
    ),
}


@families
@pytest.mark.parametrize("obstacle", OBSTACLES.values(), ids=OBSTACLES)
def test_the_rule_is_named_and_its_cure_works_as_typed(
    client: Asker, make_node: NodeMaker, family: int, obstacle: Obstacle
) -> None:
    node = make_node(NONE)
    words = {
        "ip": FAMILY[family], "iptables": COMMAND[family], "client": CLIENT[family],
        "node": NODE[family], "guest": GUEST[family](11),
    }  # fmt: skip
    node.guest("web1", "8080:80", serves="80/tcp", family=family).start()
    node.namespace.run(["sh", "-ec", obstacle.rules(family)])
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[family], 8080))
    assert told.exit_code == 1
    assert obstacle.said.format_map(words) in told.end
    assert " ".join(told.cure).startswith(obstacle.cure.format_map(words))
    assert told.lines[-2].endswith("  <- it ended here")
    assert ("answer " in told.output) == obstacle.is_answer
    node.namespace.run(told.cure)
    told = trace(node, "web1:8080", lambda: client.asks(NODE[family], 8080))
    assert told.exit_code == 0, told.output
    node.accept_foreign_tables()


def test_ufw_is_told_in_its_own_words(client: Asker, node: Node) -> None:
    """It does not run here: its rule is made as `ufw route allow` makes it."""
    node.guest("web1", "8080:80", serves="80/tcp").start()
    rules = iptables(*UFW, "-P FORWARD DROP")
    node.namespace.run(["sh", "-ec", rules(4)])
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[4], 8080))
    assert told.cure == ["ufw", "route", "allow", "proto", "tcp", "to", "10.5.5.11", "port", "80"]
    node.namespace.run(
        [
            "iptables",
            "-A",
            "ufw-user-forward",
            "-p",
            "tcp",
            "-d",
            "10.5.5.11",
            "--dport",
            "80",
            "-j",
            "ACCEPT",
        ]
    )
    told = trace(node, "web1:8080", lambda: client.asks(NODE[4], 8080))
    assert told.exit_code == 0, told.output
    assert "  ip filter FORWARD: accepted by rule `-A ufw-user-forward" in told.output
    node.accept_foreign_tables()


@families
@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_the_reject_of_libvirt(
    client: Asker, node: Node, network_guest: GuestMaker, family: int, backend: str
) -> None:
    """Another program has taken the exception away."""
    web1 = network_guest("web1", "8080:22", family=family)
    web1.start()
    BACKENDS[backend](node)
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[family], 8080))
    assert (told.exit_code, told.cure) == (1, ["cgw", "sync"])
    assert "has rejected the packet, by `" in told.end
    assert "LIBVIRT_FWI" in told.end or "libvirt_network" in told.end
    node.cgw("sync", check=False)
    web1.hook("reconnect")
    told = trace(node, "web1:8080", lambda: client.asks(NODE[family], 8080))
    assert told.exit_code == 0, told.output
    web1.stop()
    node.accept_foreign_tables()


def test_rules_of_iptables_legacy_cannot_be_traced(client: Asker, node: Node) -> None:
    node.guest("web1", "8080:80", serves="80/tcp").start()
    node.namespace.run(
        ["iptables-legacy", "-A", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "DROP"]
    )
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[4], 8080))
    assert told.exit_code == 1
    assert (
        "the packet has ended among the chains of the hook forward, and iptables-legacy has "
        in (told.end)
    )
    assert "rules in filter, which nft cannot trace" in told.end


def test_the_table_of_steering_or_of_cgw_itself_is_cured_by_a_sync(
    client: Asker, make_node: NodeMaker
) -> None:
    """Somebody has put a rule into the table of cgw."""
    node = make_node(FULL_NAT)
    node.guest("web1", "8080:80", serves="80/tcp").start()
    node.nft("insert rule inet cgw prerouting tcp dport 8080 drop\n")
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[4], 8080))
    assert told.cure == ["cgw", "sync"]
    assert "inet cgw prerouting has dropped the packet, by `tcp dport 8080 drop`" in told.end
    node.cgw("sync", check=False)
    told = trace(node, "web1:8080", lambda: client.asks(NODE[4], 8080))
    assert told.exit_code == 0, told.output

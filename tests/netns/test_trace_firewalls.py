"""`cgw trace` where another program drops the packet: its rule is named, and the cure works.

The rules stand here as those programs make them. tests/systemd has the programs themselves.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.full import extended
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NONE
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node
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


def ufw(family: int) -> str:
    """The chains of ufw that a forwarded packet meets, as `ufw enable` makes them."""
    name = {4: "ufw", 6: "ufw6"}[family]
    answers = "-m conntrack --ctstate RELATED,ESTABLISHED"
    chains = ("before-logging", "before", "after", "after-logging", "reject", "track")
    rules = [f"-N {name}-user-forward"]
    rules += [f"-N {name}-{chain}-forward" for chain in chains]
    rules += [f"-A FORWARD -j {name}-{chain}-forward" for chain in chains]
    rules += [f"-A {name}-before-forward {answers} -j ACCEPT"]
    rules += [f"-A {name}-before-forward -j {name}-user-forward", "-P FORWARD DROP"]
    return iptables(*rules)(family)


OBSTACLES = {
    "the policy of FORWARD": Obstacle(
        iptables("-P FORWARD DROP"),
        "{ip} filter FORWARD has dropped the packet, by its policy",
        "{iptables} -w -I FORWARD -o guestbr0 -m conntrack --ctstate DNAT -j ACCEPT",
    ),
    "a rule of iptables": Obstacle(
        iptables("-A FORWARD -m mark --mark 7 -j ACCEPT", "-A FORWARD -p tcp -j REJECT"),
        "{ip} filter FORWARD has rejected the packet, by `-A FORWARD -p tcp -j REJECT",
        "{iptables} -w -I FORWARD ",
    ),
    "Docker's policy": Obstacle(
        iptables(*DOCKER, "-P FORWARD DROP"),
        "{ip} filter FORWARD has dropped the packet, by its policy",
        "{iptables} -w -I DOCKER-USER ",
    ),
    "a rule in DOCKER-USER": Obstacle(
        iptables(*DOCKER, "-A DOCKER-USER -i xenbr0 -j DROP"),
        "{ip} filter FORWARD has dropped the packet, by `-A DOCKER-USER -i xenbr0 -j DROP`",
        "{iptables} -w -I DOCKER-USER ",
    ),
    "iptables, before translation": Obstacle(
        iptables("-t raw -A PREROUTING -p tcp --dport 8080 -j DROP"),
        "{ip} raw PREROUTING has dropped the packet, by `-A PREROUTING -p tcp -m tcp --dport 8080",
        "{iptables} -t raw -w -I PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 8080 ",
    ),
    "a table that forwards nothing": Obstacle(
        nft("inet", "forward priority 10", "policy drop"),
        "inet theirs theirs has dropped the packet, by its policy",
        'nft \'insert rule inet theirs theirs oifname "guestbr0" ct status dnat accept; ',
    ),
    "a rule of nft": Obstacle(
        nft("inet", "prerouting priority -350", "{ip} saddr {client} tcp dport 8080 drop"),
        "inet theirs theirs has dropped the packet, by `{ip} saddr {client} tcp dport 8080 drop`",
        "nft 'insert rule inet theirs theirs fib daddr type local tcp dport 8080 accept'",
    ),
    "a rule after translation": Obstacle(
        nft("inet", "postrouting priority 200", "tcp dport 80 counter drop"),
        "inet theirs theirs has dropped the packet, by `tcp dport 80 drop`",
        'nft \'insert rule inet theirs theirs oifname "guestbr0" ct status dnat accept; ',
    ),
    "a rule of a bridge": Obstacle(
        nft("bridge", "prerouting priority -300", "tcp dport 8080 drop"),
        "bridge theirs theirs has dropped the packet, by `tcp dport 8080 drop`",
        "nft 'insert rule bridge theirs theirs ",
    ),
    "a rule of the guest's bridge": Obstacle(
        nft("bridge", "output priority 0", "oifname guest11 tcp dport 80 drop"),
        'bridge theirs theirs has dropped the packet, by `oifname "guest11" tcp dport 80 drop`',
        "nft 'insert rule bridge theirs theirs {ip} daddr {guest} tcp dport 80 accept",
    ),
    "a rule for answers": Obstacle(
        iptables("-A FORWARD -i guestbr0 -j DROP"),
        "{ip} filter FORWARD has dropped the answer, by `-A FORWARD -i guestbr0 -j DROP`",
        "{iptables} -w -I FORWARD ",
        is_answer=True,
    ),
    "a rule of a bridge for answers": Obstacle(
        nft("bridge", "prerouting priority -300", "tcp sport 80 drop"),
        "bridge theirs theirs has dropped the answer, by `tcp sport 80 drop`",
        "nft 'insert rule bridge theirs theirs {ip} saddr {guest} tcp sport 80 accept",
        is_answer=True,
    ),
}


#: With `--full`, both families each.
ONE_FAMILY_EACH = [
    (name, family) if number % 2 == (family == 6) else extended(name, family)
    for number, name in enumerate(OBSTACLES)
    for family in (4, 6)
]


@pytest.mark.parametrize(("name", "family"), ONE_FAMILY_EACH)
def test_the_rule_is_named_and_its_cure_works_as_typed(
    client: Asker, make_node: NodeMaker, name: str, family: int
) -> None:
    obstacle, node = OBSTACLES[name], make_node(NONE)
    words = {
        "ip": FAMILY[family], "iptables": COMMAND[family], "client": CLIENT[family],
        "node": NODE[family], "guest": GUEST[family](11),
    }  # fmt: skip
    node.guest("web1", "8080:80", serves="80/tcp", family=family).start()
    node.namespace.run(["sh", "-ec", obstacle.rules(family)])
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[family], 8080))
    assert told.exit_code == 1
    assert obstacle.said.format_map(words) in told.end
    assert told.cure.startswith(obstacle.cure.format_map(words))
    assert told.lines[-2].endswith("  <- it ended here")
    assert ("answer " in told.output) == obstacle.is_answer
    node.namespace.run(["sh", "-ec", told.cure])
    told = trace(node, "web1:8080", lambda: client.asks(NODE[family], 8080))
    assert told.exit_code == 0, told.output
    node.accept_foreign_tables()


@pytest.mark.parametrize("family", [4, extended(6)])
def test_ufw_is_told_in_its_own_words(client: Asker, make_node: NodeMaker, family: int) -> None:
    """It does not run here: its rule is made as `ufw route allow` makes it."""
    node = make_node(NONE)
    node.guest("web1", "8080:80", serves="80/tcp", family=family).start()
    node.namespace.run(["sh", "-ec", ufw(family)])
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[family], 8080))
    guest = GUEST[family](11)
    assert told.cure == f"ufw route allow proto tcp from any to {guest} port 80"
    chain = {4: "ufw-user-forward", 6: "ufw6-user-forward"}[family]
    allowed = f"{COMMAND[family]} -A {chain} -p tcp -d {guest} --dport 80 -j ACCEPT"
    node.namespace.run(allowed.split())
    told = trace(node, "web1:8080", lambda: client.asks(NODE[family], 8080))
    assert told.exit_code == 0, told.output
    assert f"{FAMILY[family]} filter FORWARD: accepted by rule `-A {chain}" in told.output
    node.accept_foreign_tables()


@pytest.mark.parametrize(
    ("backend", "family"),
    [("iptables", 4), ("nftables", 6), extended("iptables", 6), extended("nftables", 4)],
)
def test_the_reject_of_libvirt(
    client: Asker, node: Node, network_guest: GuestMaker, backend: str, family: int
) -> None:
    """Another program has taken the exception away."""
    web1 = network_guest("web1", "8080:22", family=family)
    web1.start()
    BACKENDS[backend](node)
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[family], 8080))
    assert (told.exit_code, told.cure) == (1, "cgw sync")
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
    assert told.cure == "cgw sync"
    assert "inet cgw prerouting has dropped the packet, by `tcp dport 8080 drop`" in told.end
    node.cgw("sync", check=False)
    told = trace(node, "web1:8080", lambda: client.asks(NODE[4], 8080))
    assert told.exit_code == 0, told.output

"""The ruleset that cgw grew from, as its article has it: what each rule does to a packet.

Ours does the same, and otherwise only where it is meant to: the table runs on a cluster whose nodes
hold the article's text, and on one whose nodes hold our rules.
"""

import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

import pytest

from tests.lab.domain import guest_mac
from tests.lab.network import CLIENT_ADDRESS, GATEWAY_ADDRESS, GUEST_BRIDGE, GUEST_SUBNET
from tests.netns.capture import Frame
from tests.netns.cluster import Cluster, all_up, cluster, inside, uplink

pytestmark = pytest.mark.netns

#: Of node1; on another node its own two addresses stand for these.
ARTICLE = """
table ip nat {
    chain prerouting { type nat hook prerouting priority dstnat;
        iif xenbr0 tcp dport 2201 dnat 10.5.5.21:22
        iif xenbr0 tcp dport 2202 dnat 10.5.5.22:22
        iif xenbr0 tcp dport 2203 dnat 10.5.5.23:22
        iif xenbr0 udp dport 2202 dnat 10.5.5.22:22
    }
    chain postrouting { type nat hook postrouting priority srcnat;
        ip saddr 10.5.5.0/24 oif xenbr0 snat 192.168.122.11
        ip daddr 10.5.5.0/24 oif guestbr0 snat 10.5.5.251
    }
}
table netdev filter {
    chain egress { type filter hook egress devices = { eth1.100, eth2.100 } priority -500;
        arp saddr ip 10.5.5.254 drop
        arp daddr ip 10.5.5.254 drop
    }
}
"""
SNAT = "ip saddr 10.5.5.0/24 oif xenbr0 snat 192.168.122.11"
FULL_NAT = "ip daddr 10.5.5.0/24 oif guestbr0 snat 10.5.5.251"
FROM_GATEWAY = "arp saddr ip 10.5.5.254 drop"
TO_GATEWAY = "arp daddr ip 10.5.5.254 drop"
PATIENCE = 60.0


class Made(NamedTuple):
    """A cluster, and whether its rules are ours."""

    cluster: Cluster
    ours: bool


@pytest.fixture(scope="module", params=["article", "ours"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Made]:
    homes = {"web1": 1, "web2": 2, "web3": 3}
    with cluster(tmp_path_factory.mktemp(request.param), homes=homes) as wired:
        all_up(wired)
        if request.param == "article":
            for index, node in wired.nodes.items():
                text = ARTICLE.replace(uplink(1, 4), uplink(index, 4))
                node.nft("delete table inet cgw\ndelete table bridge cgw\n")
                node.nft(text.replace(inside(1, 4), inside(index, 4)))
        wired.client.serve(CLIENT_ADDRESS, "80/tcp 80/udp")
        wired.client.namespace.ip(f"route add {GUEST_SUBNET} via {uplink(1, 4)}")
        yield Made(wired, request.param == "ours")


class Row(NamedTuple):
    """`rule` is the one that matters. Who answers, and whom it saw: by the article, and by ours.

    With br_netfilter, this node's rules see what is only bridged through it.
    """

    rule: str
    who: str
    to: str
    article: str
    ours: str
    br_netfilter: int = 0

    def __str__(self) -> str:
        """Spell the row as the test's name."""
        return f"{self.who} to {self.to}" + ", br_netfilter" * bool(self.br_netfilter)


def same(rule: str, who: str, to: str, answer: str) -> Row:
    return Row(rule, who, to, answer, answer)


def dnat(port: str, guest: int) -> str:
    return f"iif xenbr0 {port} dnat 10.5.5.2{guest}:22"


SAME = [
    same(dnat("tcp dport 2201", 1), "client", "192.168.122.11:2201/tcp", "web1 saw 10.5.5.251"),
    same(dnat("tcp dport 2202", 2), "client", "192.168.122.11:2202/tcp", "web2 saw 10.5.5.251"),
    same(dnat("tcp dport 2203", 3), "client", "192.168.122.11:2203/tcp", "web3 saw 10.5.5.251"),
    same(dnat("udp dport 2202", 2), "client", "192.168.122.11:2202/udp", "web2 saw 10.5.5.251"),
    same(FULL_NAT, "client", "192.168.122.12:2201/tcp", "web1 saw 10.5.5.252"),
    same(FULL_NAT, "client", "192.168.122.13:2202/udp", "web2 saw 10.5.5.253"),
    same("no rule", "node1", "10.5.5.22:22/tcp", "web2 saw 10.5.5.251"),
    same(SNAT, "web1", "192.168.122.100:80/tcp", "client saw 192.168.122.11"),
    same(SNAT, "web2", "192.168.122.100:80/udp", "client saw 192.168.122.12"),
    same("no rule", "client", "192.168.122.11:2299/tcp", "refused"),
    same("no rule", "web1", "10.5.5.23:22/tcp", "web3 saw 10.5.5.21"),
]

DIFFERENT = [
    # Only bridged through node2, which takes them for its own.
    Row(
        FULL_NAT, "client", "192.168.122.11:2203/tcp",
        article="web3 saw 10.5.5.252", ours="web3 saw 10.5.5.251", br_netfilter=2,
    ),
    Row(
        FULL_NAT, "web1", "10.5.5.23:22/tcp",
        article="web3 saw 10.5.5.252", ours="web3 saw 10.5.5.21", br_netfilter=2,
    ),
    # Not translated on the way in: who has a route to the guests is seen as it is.
    Row(
        FULL_NAT, "client", "10.5.5.21:22/tcp",
        article="web1 saw 10.5.5.251", ours="web1 saw 192.168.122.100",
    ),
    # A published port answers those inside, too.
    Row(
        dnat("tcp dport 2202", 2), "web1", "192.168.122.11:2202/tcp",
        article="refused", ours="web2 saw 10.5.5.251",
    ),
    Row(
        dnat("tcp dport 2202", 2), "node1", "192.168.122.11:2202/tcp",
        article="refused", ours="web2 saw 10.5.5.251",
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", [*SAME, *DIFFERENT], ids=str)
def test_a_packet(made: Made, row: Row) -> None:
    for index, node in made.cluster.nodes.items():
        node.pass_bridged_packets_to_rules(index == row.br_netfilter)
    address, _, service = row.to.partition(":")
    port, _, protocol = service.partition("/")
    answer = made.cluster.asker(row.who).asks(address, int(port), protocol)
    assert answer == (row.ours if made.ours else row.article)


class ArpRow(NamedTuple):
    """ARP in the name of an address, about another; whether it passes between nodes."""

    rule: str
    sender: str
    target: str
    passes: bool


STRANGER, OTHER = "10.5.5.98", "10.5.5.99"
ARP = [
    ArpRow(FROM_GATEWAY, GATEWAY_ADDRESS, GATEWAY_ADDRESS, passes=False),
    ArpRow(FROM_GATEWAY, GATEWAY_ADDRESS, "10.5.5.22", passes=False),
    ArpRow(TO_GATEWAY, STRANGER, GATEWAY_ADDRESS, passes=False),
    ArpRow("no rule", STRANGER, "10.5.5.22", passes=True),
]
NODE_MAC = "02:00:00:00:05:01"
SENDERS = {"node1": (GUEST_BRIDGE, NODE_MAC), "web1": ("eth0", guest_mac(21))}


@pytest.mark.parametrize("who", SENDERS)
@pytest.mark.parametrize("row", ARP, ids=lambda row: f"{row.sender} about {row.target}")
def test_arp(made: Made, row: ArpRow, who: str) -> None:
    """What is sent after it and passes shows that it had its time."""
    made.cluster.internode_frames_about("")
    _send_arp(made.cluster, who, row.sender, row.target)
    _send_arp(made.cluster, who, STRANGER, OTHER)
    passed = {(frame.source, frame.about) for frame in _frames_until(made.cluster, OTHER)}
    assert ((row.sender, row.target) in passed) == row.passes


def _send_arp(made: Cluster, who: str, sender: str, target: str) -> None:
    """A question; who hears it finds the gateway's right MAC address in it, and keeps that."""
    device, mac = SENDERS[who]
    frame = bytes.fromhex(
        f"ffffffffffff {mac} 0806 0001 0800 06 04 0001 {NODE_MAC}".replace(":", "")
    )
    frame += IPv4Address(sender).packed + bytes(6) + IPv4Address(target).packed
    inside_it = made.asker(who).namespace
    with inside_it.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as wire:
        wire.bind((device, 0))
        wire.send(frame)


def _frames_until(made: Cluster, about: str) -> list[Frame]:
    """What passed between nodes until ARP about this address did."""
    deadline, frames = time.monotonic() + PATIENCE, list[Frame]()
    while not any(frame.about == about for frame in frames):
        assert time.monotonic() < deadline, f"no ARP about {about} passes"
        frames += [frame for capture in made.internode for frame in capture.frames()]
    return [frame for frame in frames if frame.kind == "arp"]


def test_every_rule_of_the_article_has_a_row() -> None:
    lines = [line.strip() for line in ARTICLE.splitlines() if line.startswith(" " * 8)]
    assert {row.rule for row in SAME} | {row.rule for row in ARP} == {*lines, "no rule"}

"""`cgw trace`: the way of a real packet to a guest, and of its answer."""

import os
import signal
import socket

import pytest

from tests.full import extended
from tests.lab.client import DEFAULT_PATIENCE
from tests.lab.namespace import veth
from tests.lab.network import UPLINK_SUBNET
from tests.libvirt.waiting import eventually
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS, NONE, THIRD
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node
from tests.netns.parameters import bridgings, configs, families, protocols
from tests.netns.test_foreign_forwards import GUEST
from tests.netns.tracing import Tracing, start_trace, trace, trace_tables

pytestmark = pytest.mark.netns

DEAF = "table inet deaf { chain in { type filter hook input priority 0; tcp dport 80 drop; }; }"
ANSWERED = "the guest answered, and the answer went back"


@configs
@bridgings
@families
@protocols
def test_the_way_to_a_guest_and_back(  # noqa: PLR0913, PLR0917 - parameters
    client: Asker, make_node: NodeMaker, protocol: str, family: int, bridging: bool, config: str
) -> None:
    node = make_node(config)
    node.pass_bridged_packets_to_rules(bridging)
    service = f"80/{protocol}"
    node.guest("web1", f"8080:{service}", serves=service, family=family).start()

    def ask() -> None:
        seen_as = NODE_AMONG_GUESTS[family] if config else CLIENT[family]
        assert client.asks(NODE[family], 8080, protocol) == f"web1 saw {seen_as}"

    told = trace(node, f"web1:8080/{protocol}", ask, "--json")
    found = told.json
    assert (told.exit_code, found["problem"], found["complete"]) == (0, None, True)
    request, answer = found["request"], found["answer"]
    guest, through = GUEST[family](11), NODE_AMONG_GUESTS[family] if config else CLIENT[family]
    assert (request["came_by"], request["left_by"]) == ("xenbr0 (eth0)", "guestbr0 (guest11)")
    assert ends(request["packet"])[0] == CLIENT[family]
    assert ends(request["packet"])[2:] == (NODE[family], 8080)
    assert ends(request["last"])[0] == through
    assert ends(request["last"])[2:] == (guest, 80)
    translating = [s["place"] for s in request["steps"] if s["what"] == "translated"]
    wanted = ["inet cgw prerouting", "inet cgw postrouting"]
    assert translating == wanted[: 2 if config else 1]
    assert ends(answer["packet"]) == ends(request["last"])[2:] + ends(request["last"])[:2]
    assert ends(answer["last"]) == ends(request["packet"])[2:] + ends(request["packet"])[:2]
    assert (answer["came_by"], answer["left_by"]) == ("guestbr0 (guest11)", "xenbr0 (eth0)")


def ends(packet: dict[str, object]) -> tuple[object, ...]:
    """Source, source port, destination, destination port."""
    return tuple(
        packet[name] for name in ("source", "source_port", "destination", "destination_port")
    )


def test_the_story_in_words(client: Asker, make_node: NodeMaker) -> None:
    node = make_node(FULL_NAT)
    node.guest("web1", "8080:80", serves="80/tcp").start()
    told = trace(node, "web1:8080", lambda: client.asks(NODE[4], 8080))
    port = told.lines[0].partition(" -> ")[0].rpartition(":")[2]
    tracked = "  connection tracking: translated to "
    shown = [line for line in told.lines if not line.endswith("accepted by its policy")]
    assert shown == [
        f"client 192.168.122.100:{port} -> 192.168.122.11:8080 (tcp SYN) came in by xenbr0 (eth0)",
        f"  inet cgw prerouting: translated to 192.168.122.100:{port} -> 10.5.5.11:80 (tcp SYN)",
        f"  inet cgw postrouting: translated to 10.5.5.251:{port} -> 10.5.5.11:80 (tcp SYN)",
        f"  left by guestbr0 (guest11): 10.5.5.251:{port} -> 10.5.5.11:80 (tcp SYN)",
        f"answer 10.5.5.11:80 -> 10.5.5.251:{port} (tcp SYN ACK) came in by guestbr0 (guest11)",
        f"{tracked}10.5.5.11:80 -> 192.168.122.100:{port} (tcp SYN ACK)",
        f"{tracked}192.168.122.11:8080 -> 192.168.122.100:{port} (tcp SYN ACK)",
        f"  left by xenbr0 (eth0): 192.168.122.11:8080 -> 192.168.122.100:{port} (tcp SYN ACK)",
        ANSWERED,
    ]
    assert told.exit_code == 0


@bridgings
@families
def test_other_clients_than_one_on_the_uplink(
    client: Asker, make_node: NodeMaker, family: int, bridging: bool
) -> None:
    """The node itself, a guest, the published guest itself; and a port of a range."""
    node = make_node(FULL_NAT)
    node.pass_bridged_packets_to_rules(bridging)
    web1 = node.guest("web1", "3000-3009:3000", serves="3005/tcp", family=family)
    asker = node.guest("asker", serves="22/tcp", octet=12, family=family)
    web1.reflect_on_port()
    web1.start()
    for asks in (client.asks, node.asks, asker.asks, web1.asks):
        told = trace(node, "web1:3005", lambda asks=asks: asks(NODE[family], 3005))  # type: ignore[misc]
        assert (told.exit_code, told.end) == (0, ANSWERED), told.output


@bridgings
@families
def test_datagrams_that_are_sent_in_fragments(
    client: Asker, make_node: NodeMaker, family: int, bridging: bool
) -> None:
    node = make_node(FULL_NAT)
    node.pass_bridged_packets_to_rules(bridging)
    node.guest("web1", "5353:53/udp", serves="53/udp", family=family).start()
    kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]

    def ask() -> None:
        with socket.socket(kind, socket.SOCK_DGRAM) as question:
            question.settimeout(DEFAULT_PATIENCE)
            question.sendto(b"x" * 4000, (NODE[family], 5353))
            assert len(question.recv(9000)) > 4000

    # Fragments that wait for an answer to ARP may be dropped.
    assert client.asks(NODE[family], 5353, "udp") == f"web1 saw {NODE_AMONG_GUESTS[family]}"

    told = trace(node, "web1:5353", lambda: client.namespace.call(ask))
    assert (told.exit_code, told.end) == (0, ANSWERED), told.output


def test_a_trace_takes_the_next_client_of_a_network(
    client: Asker, third: Asker, node: Node
) -> None:
    node.guest("web1", "8080:80", serves="80/tcp").start()

    def ask() -> None:
        assert client.asks(NODE[4], 8080) == f"web1 saw {CLIENT[4]}"
        assert third.asks(NODE[4], 8080) == f"web1 saw {THIRD[4]}"

    for network, first in ((f"{THIRD[4]}/32,fd00::/64", THIRD), (UPLINK_SUBNET, CLIENT)):
        told = trace(node, "web1:8080", ask, "--from", network)
        assert told.lines[0].startswith(f"client {first[4]}:")


@families
@protocols
def test_a_guest_that_refuses(
    client: Asker, make_node: NodeMaker, protocol: str, family: int
) -> None:
    node = make_node(NONE)
    node.guest("web1", f"8080:80/{protocol}", serves="7/tcp", family=family).start()
    told = trace(
        node, f"web1:8080/{protocol}", lambda: client.is_unanswered(NODE[family], 8080, protocol)
    )
    assert told.exit_code == 1
    assert f"{GUEST[family](11)} has answered that nothing listens there" in told.end
    assert "  left by xenbr0 (eth0)" in told.lines[-2]


def test_a_guest_that_is_silent(client: Asker, node: Node) -> None:
    web1 = node.guest("web1", "8080:80", serves="80/tcp")
    web1.wire.namespace.run(["nft", DEAF])
    web1.start()
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[4], 8080))
    assert told.exit_code == 1
    assert "the packet left by guestbr0 (guest11) for 10.5.5.11, and no answer came" in told.end


@pytest.mark.extended
def test_a_guest_that_nobody_has(client: Asker, node: Node) -> None:
    node.guest("web1", "8080:80").start()
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[4], 8080))
    assert told.exit_code == 1
    assert "no host there has this address" in told.end


@pytest.mark.extended
def test_a_guest_whose_gateway_is_another_host(client: Asker, third: Asker, node: Node) -> None:
    """Its answer meets the bridge of this node, and not its connection tracking."""
    node.pass_bridged_packets_to_rules(False)
    veth(node.namespace, "leg", third.namespace, "eth1")
    node.namespace.ip("link set leg master guestbr0")
    third.namespace.ip("address add 10.5.5.99/24 dev eth1")
    third.namespace.sysctl({"net/ipv4/ip_forward": "1"})
    web1 = node.guest("web1", "8080:80", serves="80/tcp")
    web1.wire.namespace.ip("route replace default via 10.5.5.99")
    web1.start()
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[4], 8080))
    assert told.exit_code == 1
    assert "the answer left by leg as it was: this host has not translated it back" in told.end


def test_a_source_that_may_not_use_the_port(client: Asker, node: Node) -> None:
    node.guest("web1", "8080:80 from 203.0.113.0/24", serves="80/tcp").start()
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[4], 8080))
    assert told.exit_code == 1
    assert f"{CLIENT[4]} may not use *:8080/tcp -> 10.5.5.11:80 from 203.0.113.0/24" in told.end


def test_a_client_that_is_denied(client: Asker, node: Node) -> None:
    node.guest("web1", "8080:80", serves="80/tcp").start()
    node.cgw("deny", CLIENT[4])
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[4], 8080))
    assert told.exit_code == 1
    assert f"{CLIENT[4]} is denied the published ports of this node" in told.end
    node.cgw(*told.cure.split()[1:])
    assert client.asks(NODE[4], 8080).startswith("web1")


def test_a_client_beyond_its_limit(client: Asker, node: Node) -> None:
    node.guest("web1", "8080:80 limit 1/hour", serves="80/tcp").start()
    assert client.asks(NODE[4], 8080).startswith("web1")
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[4], 8080))
    assert told.exit_code == 1
    assert f"{CLIENT[4]} is beyond the limit of *:8080/tcp: 1/hour" in told.end


@pytest.mark.parametrize("family", [4, extended(6)])
def test_a_kernel_that_does_not_forward(client: Asker, make_node: NodeMaker, family: int) -> None:
    node = make_node(NONE)
    node.guest("web1", "8080:80", serves="80/tcp", family=family).start()
    setting = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}[family]
    node.namespace.sysctl({setting: "0"})
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[family], 8080))
    assert told.exit_code == 1
    assert f"sysctl -w {setting}=1" in told.end
    node.namespace.sysctl({setting: "1"})


def test_a_reverse_path_filter(client: Asker, node: Node) -> None:
    node.guest("web1", "8080:80", serves="80/tcp").start()
    node.namespace.sysctl({"net/ipv4/conf/xenbr0/rp_filter": "1"})
    client.namespace.ip(
        "neigh replace 192.168.122.11 lladdr 02:00:00:00:7a:01 nud permanent dev uplink0"
    )
    node.namespace.ip(f"route add {CLIENT[4]}/32 dev guestbr0")
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[4], 8080))
    assert told.exit_code == 1
    assert "the reverse path filter of xenbr0 has discarded the packet" in told.end
    assert told.end.endswith("; sysctl -w net/ipv4/conf/xenbr0/rp_filter=2")
    node.namespace.ip(f"route delete {CLIENT[4]}/32 dev guestbr0")


def test_no_packet_comes(node: Node) -> None:
    node.nft("table netdev early { chain c { type filter hook ingress device eth0 priority 0; }; }")
    node.guest("web1", "8080:80", serves="80/tcp").start()
    told = trace(node, "web1:8080", lambda: None, "--timeout", "1")
    assert told.exit_code == 1
    assert "no client's packet to *:8080/tcp came in 1 s; netdev early comes before" in told.end


@pytest.mark.parametrize("number", [signal.SIGKILL, extended(signal.SIGTERM), signal.SIGINT])
def test_nothing_is_left_of_a_trace_that_is_ended(node: Node, number: int) -> None:
    node.guest("web1", "8080:80", serves="80/tcp").start()
    tracing = start_trace(node, "web1:8080", "--timeout", "600")
    assert len(trace_tables(node)) == 2
    os.kill(tracing.process.pid, number)
    tracing.process.communicate()
    assert eventually(lambda: trace_tables(node) == [])


@pytest.mark.extended
def test_a_trace_that_hangs_traces_nothing_after_its_time(node: Node) -> None:
    node.guest("web1", "8080:80", serves="80/tcp").start()
    tracing = start_trace(node, "web1:8080", "--timeout", "1")
    assert armed_for(node) > 0
    os.kill(tracing.process.pid, signal.SIGSTOP)
    assert eventually(lambda: armed_for(node) == 0)
    assert len(trace_tables(node)) == 2
    os.kill(tracing.process.pid, signal.SIGCONT)
    assert tracing.told().exit_code == 1


def armed_for(node: Node) -> int:
    """The number of listening ports for which traces are armed, one per address and table."""
    listing = "".join(node.nft(f"list table {name}\n") for name in trace_tables(node))
    return listing.count(". 8080 timeout")


def test_nobody_else_can_take_the_tables_away(node: Node, client: Asker) -> None:
    """`nft flush ruleset` takes the published ports; the trace goes on, and says that."""
    node.guest("web1", "8080:80", serves="80/tcp").start()
    tracing = start_trace(node, "web1:8080")
    node.nft("flush ruleset\n")
    assert len(trace_tables(node)) == 2
    assert client.is_unanswered(NODE[4], 8080)
    told = tracing.told()
    assert "nothing has translated the packet to *:8080/tcp" in told.end
    node.cgw("sync", check=False)
    told = trace(node, "web1:8080", lambda: client.asks(NODE[4], 8080))
    assert told.end == ANSWERED


def test_two_traces_at_once(client: Asker, third: Asker, node: Node) -> None:
    node.guest("web1", "8080:80", "8081:81", serves="80/tcp 81/tcp").start()
    every = start_trace(node, "web1:8080")
    some = start_trace(node, "web1:8080", "--from", f"{THIRD[4]}/32")
    other = start_trace(node, "web1:8081")
    assert len(trace_tables(node)) == 6
    assert node.states() == {"web1": "published"}
    assert client.asks(NODE[4], 8080) == f"web1 saw {CLIENT[4]}"
    assert third.asks(NODE[4], 8080) == f"web1 saw {THIRD[4]}"
    assert third.asks(NODE[4], 8081) == f"web1 saw {THIRD[4]}"
    for tracing, asked_by, port in (
        (every, CLIENT, 8080),
        (some, THIRD, 8080),
        (other, THIRD, 8081),
    ):
        told = tracing.told()
        assert told.end == ANSWERED
        assert told.lines[0].startswith(f"client {asked_by[4]}:")
        assert f" -> {NODE[4]}:{port} " in told.lines[0]
    assert trace_tables(node) == []


def test_a_busy_port(client: Asker, node: Node) -> None:
    node.guest("web1", "8080:80", serves="80/tcp").start()

    def ask() -> None:
        for _ in range(200):
            assert client.asks(NODE[4], 8080) == f"web1 saw {CLIENT[4]}"

    told = trace(node, "web1:8080", ask, "--json")
    assert told.exit_code == 0
    assert told.json["complete"]


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("web2:8080", '"web2": no guest of this name is published; see: cgw status'),
        ("web1", '"web1": no port is given; give one of: web1:8080/tcp, web1:5353/udp'),
        ("web1:80", 'guest "web1": it publishes no single port 80; give one of: web1:8080/tcp'),
        ("web1:x", '"x": this is no published port; '),
        ("web1:8080/udp", 'guest "web1": it publishes no single port 8080/udp; give one of: '),
    ],
)
def test_a_port_that_is_not_published(node: Node, subject: str, message: str) -> None:
    node.guest("web1", "8080:80", "5353:53/udp").start()
    tracing = Tracing(node, subject)
    assert tracing.first_line.startswith(f"cgw: {message}")
    assert tracing.told().exit_code == 8
    assert trace_tables(node) == []


def test_a_port_without_its_protocol_and_the_guest_by_its_uuid(client: Asker, node: Node) -> None:
    web1 = node.guest("web1", "5353:53/udp", serves="53/udp")
    web1.start()
    for subject in ("web1:5353", f"{web1.key.removeprefix('qemu-')}:5353"):
        told = trace(node, subject, lambda: client.asks(NODE[4], 5353, "udp"))
        assert told.end == ANSWERED

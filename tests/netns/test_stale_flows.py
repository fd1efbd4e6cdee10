"""Clients that go on sending: their flows neither outlive what is published nor hinder it."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cgw_hooks.host import conntrack
from tests.lab.client import UdpSender
from tests.lab.flows import send_datagrams
from tests.lab.network import guest_address
from tests.netns.asker import REFUSED, TIMED_OUT, Asker, spoken
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS, THIRD
from tests.netns.conftest import NodeMaker
from tests.netns.guest import DONE, Guest, annotated
from tests.netns.node import Node
from tests.netns.own_mounts import own_mounts
from tests.netns.parameters import configs, families

if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address

pytestmark = pytest.mark.netns

_INTERVAL = 0.02
_SOURCE_PORT = 40000


@contextmanager
def sending(sender: UdpSender) -> Iterator[None]:
    """Send every 20 ms from the same port, whatever comes back."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(_INTERVAL):
            sender.send("tick")

    thread = threading.Thread(target=send)
    sender.send("tick")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def is_unanswered(sender: UdpSender) -> bool:
    """Whether nobody answers: the node refuses, but not more often than once a second."""
    return not sender.exchange(timeout=0.3).answered


def is_booting(guest: Guest) -> None:
    """As a guest that is on the network, and drops what its server does not take yet."""
    rules = (
        "table inet booting { chain in { type filter hook input priority 0; tcp dport 22 drop; }; }"
    )
    guest.wire.namespace.run(["nft", rules])


class Watch:
    """Counts packets that come in to a guest's port."""

    def __init__(self, guest: Guest, protocol: str, port: int) -> None:
        self._namespace = guest.wire.namespace
        self._nft(
            "table inet watch {\n"
            "  counter seen { }\n"
            "  chain incoming {\n"
            "    type filter hook input priority 0\n"
            f"    meta l4proto {protocol} th dport {port} counter name seen\n"
            "  }\n"
            "}\n"
        )

    def seen(self) -> int:
        """How many packets came since the last time this was asked."""
        words = self._nft("reset counter inet watch seen\n").split()
        return int(words[words.index("packets") + 1])

    def _nft(self, commands: str) -> str:
        return self._namespace.run(["nft", "-f", "-"], input=commands).stdout


@families
@configs
def test_a_udp_client_is_served_from_the_next_packet_on_and_then_no_more(
    client: Asker, make_node: NodeMaker, config: str, family: int
) -> None:
    node = make_node(config)
    web1 = node.guest("web1", "2202:22/udp", serves="22/udp", family=family)
    watch = Watch(web1, "udp", 22)
    seen = NODE_AMONG_GUESTS[family] if config else CLIENT[family]
    with client.udp_sender(NODE[family], 2202) as sender:
        with sending(sender):
            assert web1.hook("prepare") == DONE
            assert is_unanswered(sender)
            assert watch.seen() == 0
            assert web1.hook("started") == DONE
        sender.send()  # takes the refusal of an earlier packet off the socket
        assert spoken(sender.exchange("from now on")) == f"web1 saw {seen}"
        with sending(sender):
            assert web1.hook("stopped") == DONE
            watch.seen()
        assert is_unanswered(sender)
        assert watch.seen() == 0


@families
def test_an_sctp_client_likewise(client: Asker, node: Node, family: int) -> None:
    web1 = node.guest("web1", "2202:22/sctp", serves="22/sctp", family=family)
    watch = Watch(web1, "sctp", 22)

    def asks() -> str:
        reply = client.sctp(NODE[family], 2202, source_port=_SOURCE_PORT, timeout=2)
        return spoken(reply)

    assert asks() == REFUSED
    web1.start()
    assert asks() == f"web1 saw {CLIENT[family]}"
    assert watch.seen() > 0
    web1.stop()
    assert asks() == REFUSED
    assert watch.seen() == 0


def test_a_udp_client_follows_the_port_to_the_next_guest(client: Asker, node: Node) -> None:
    web1 = node.guest("web1", "2202:22/udp", serves="22/udp")
    web2 = node.guest("web2", "2202:22/udp", serves="22/udp")
    with client.udp_sender(NODE[4], 2202) as sender:
        for guest in (web1, web2):
            guest.start()
            assert spoken(sender.exchange()) == f"{guest.name} saw {CLIENT[4]}"
            guest.stop()


def test_a_udp_client_of_a_range_and_of_one_address_likewise(client: Asker, node: Node) -> None:
    """More ports than are looked up one by one."""
    web1 = node.guest("web1", "192.168.122.11:2200-2299:22/udp", serves="121/udp")
    with client.udp_sender(NODE[4], 2299) as sender:
        assert is_unanswered(sender)
        web1.start()
        assert spoken(sender.exchange()) == f"web1 saw {CLIENT[4]}"
        web1.stop()
        assert is_unanswered(sender)


@families
def test_a_flow_through_the_node_to_the_same_port_elsewhere_survives(
    node: Node, third: Asker, family: int
) -> None:
    """Told by its source port: only the flow itself remembers the rule that has gone meanwhile."""
    third.serve(THIRD[family], "2202/udp")
    ip = {4: "ip", 6: "ip6"}[family]
    node.nft(
        f"table {ip} passing {{\n"
        "  chain out {\n"
        "    type nat hook postrouting priority 0\n"
        f"    udp dport 2202 snat to [{NODE[family]}]:5555\n"
        "  }\n"
        "}\n".replace("[192.168.122.11]", "192.168.122.11")
    )
    web1 = node.guest("web1", "2202:22/udp", serves="22/udp", family=family)
    web2 = node.guest("web2", serves="80/tcp")
    with web2.wire.udp_sender(THIRD[family], 2202) as sender:
        assert sender.exchange().peer_port == 5555
        node.nft(f"flush chain {ip} passing out\n")
        web1.start()
        assert sender.exchange().peer_port == 5555
        web1.stop()
        assert sender.exchange().peer_port == 5555


@families
def test_another_guests_flow_survives(client: Asker, node: Node, family: int) -> None:
    web1 = node.guest("web1", "2202:22/udp", serves="22/udp", family=family)
    web2 = node.guest("web2", "2203:22/udp", serves="22/udp", family=family)
    web2.start()
    with client.udp_sender(NODE[family], 2203) as sender:
        peer_port = sender.exchange().peer_port
        web1.start()
        web1.stop()
        reply = sender.exchange()
        assert (reply.guest, reply.peer_port) == ("web2", peer_port)


@configs
@families
def test_a_tcp_client_that_asked_in_vain_is_not_sent_to_a_guest_that_is_gone(
    client: Asker, make_node: NodeMaker, config: str, family: int
) -> None:
    """It asks again from the same port, as for a guest that was booting."""

    def asks() -> str:
        return spoken(client.tcp(NODE[family], 2202, source_port=_SOURCE_PORT, timeout=0.4))

    node = make_node(config)
    web1 = node.guest("web1", "2202:22", serves="22/tcp", family=family)
    is_booting(web1)
    web1.start()
    assert asks() == TIMED_OUT
    web1.stop("-")
    assert asks() == REFUSED


@configs
@pytest.mark.parametrize("reason", ["destroyed", "shutdown", "crashed", "failed"])
def test_tcp_connections_of_a_guest_that_is_gone_end_at_once(
    client: Asker, make_node: NodeMaker, config: str, reason: str
) -> None:
    node = make_node(config)
    web1 = node.guest("web1", "2202:7", serves="7/tcp-echo")
    web1.start()
    with client.tcp_session(NODE[4], 2202) as session:
        assert session.exchange("hello") == "hello"
        web1.stop(reason)
        with pytest.raises(ConnectionError):
            session.exchange("anybody?")


@families
@pytest.mark.parametrize("reason", ["-", "migrated", "saved"])
def test_tcp_connections_of_a_guest_that_may_run_on_elsewhere_survive(
    client: Asker, make_node: NodeMaker, reason: str, family: int
) -> None:
    """Here it runs on where it was; new connections find the port closed."""
    node = make_node(FULL_NAT)
    web1 = node.guest("web1", "2202:7", serves="7/tcp-echo", family=family)
    web1.start()
    with client.tcp_session(NODE[family], 2202) as session:
        assert session.exchange("hello") == "hello"
        web1.stop(reason)
        assert session.exchange("still there?") == "still there?"
        assert client.asks(NODE[family], 2202) == REFUSED


def tracked(node: Node) -> "Counter[int]":
    """How many UDP flows the node's kernel tracks, by their listening port."""
    table = node.namespace.call(lambda: Path("/proc/thread-self/net/nf_conntrack").read_text())
    return Counter(int(port) for port in re.findall(r"udp .*?dport=(\d+) ", table))


def track_long(node: Node) -> None:
    """No flow may end by itself during a test, also on a slow machine."""
    node.namespace.sysctl({"net/netfilter/nf_conntrack_udp_timeout": "3600"})


def test_of_many_flows_those_to_the_guest_alone_end(client: Asker, node: Node) -> None:
    web1 = node.guest("web1", "2200-2203:22/udp", "2210:53/udp")
    web2 = node.guest("web2", "2204:22/udp", "2211:53/udp")
    web1.start()
    web2.start()
    track_long(node)
    each = 2200
    send_datagrams(client.namespace, NODE[4], [*range(2199, 2206), 2209, 2210, 2211] * each)
    sent = dict.fromkeys([*range(2199, 2206), 2209, 2210, 2211], each)
    assert sent == tracked(node)
    web1.stop()
    stay = {2199: each, 2204: each, 2205: each, 2209: each, 2211: each}
    assert stay == tracked(node)


@pytest.mark.parametrize(
    ("publish", "gone"),
    [
        ("2200:22/udp", {2200}),
        ("2200-2204:22/udp", set(range(2200, 2205))),
        ("2200-4199:2200/udp", set(range(2200, 2300))),
    ],
    ids=["one-port", "a-few", "a-long-range"],
)
def test_of_many_flows_those_that_miss_a_new_port_alone_end(
    client: Asker, node: Node, publish: str, gone: set[int]
) -> None:
    """The flows to the other guest's ports and to no guest's port go on."""
    node.guest("web2", "2199:22/udp").start()  # from here on the node tracks flows
    track_long(node)
    ports, each = range(2150, 2300), 140
    send_datagrams(client.namespace, NODE[4], [*ports] * each)
    assert dict.fromkeys(ports, each) == tracked(node)
    node.guest("web1", publish).start()
    assert {port: each for port in ports if port not in gone} == tracked(node)


@pytest.mark.parametrize(
    "unknown",
    [("_FILTER", 60), ("_BY_PROTOCOL", 1 << 20), ("_BY_SOURCE", 1 << 20), ("_FILTER", 25)],
    ids=["ignores-all", "refuses-all", "refuses-addresses", "filters"],
)
@pytest.mark.parametrize("ports", [(range(2200, 2201),), (range(2200, 2204), range(2210, 42210))])
@pytest.mark.parametrize("answered_by", [None, ip_address(guest_address(11))])
def test_whatever_the_kernel_filters_the_same_flows_are_deleted(
    client: Asker,
    node: Node,
    unknown: tuple[str, int],
    ports: tuple[range, ...],
    answered_by: "Address | None",
) -> None:
    """The kernel here is asked with an attribute or a flag that it does not know."""
    node.guest("web1", "2200-2210:22/udp").start()
    track_long(node)
    send_datagrams(client.namespace, NODE[4], range(2200, 2220))
    client.ask("tcp", NODE[4], 2200, timeout=0.1)
    selection = conntrack.Selection("udp", 4, ports, answered_by=answered_by)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conntrack, *unknown)
        deleted = node.namespace.call(lambda: conntrack.delete_flows(selection, lambda _: True))
    selected = {port for port in range(2200, 2220) if any(port in each for each in ports)}
    gone = selected & set(range(2200, 2211)) if answered_by else selected
    assert len(gone) == deleted
    assert dict.fromkeys(set(range(2200, 2220)) - gone, 1) == tracked(node)


def test_flows_of_a_zone_of_their_own_end_too(client: Asker, node: Node) -> None:
    """The kernel then writes one attribute more into a flow's tuple."""
    node.nft(
        "table inet zones {\n"
        "  chain before { type filter hook prerouting priority raw; ct original zone set 7; }\n"
        "}\n"
    )
    web1 = node.guest("web1", "2200:22/udp")
    web1.start()
    track_long(node)
    send_datagrams(client.namespace, NODE[4], [2199, 2200, 2200, 2201])
    assert {2199: 1, 2200: 2, 2201: 1} == tracked(node)
    web1.stop()
    assert {2199: 1, 2201: 1} == tracked(node)


# -- ports that end while their guest runs on -------------------------------------------------


@configs
@families
def test_a_port_taken_out_of_a_running_guests_annotation_ends_its_connections(
    client: Asker, make_node: NodeMaker, config: str, family: int
) -> None:
    """And no others: what the annotation still has goes on without a break."""
    node = make_node(config)
    web1 = node.guest(
        "web1", "2202:7", "2203:7", "2204:22/udp", serves="7/tcp-echo 22/udp", family=family
    )
    web1.start()
    with (
        client.tcp_session(NODE[family], 2202) as ended,
        client.tcp_session(NODE[family], 2203) as kept,
        client.udp_sender(NODE[family], 2204) as sender,
    ):
        assert [ended.exchange("hello"), kept.exchange("hello")] == ["hello", "hello"]
        assert sender.exchange().guest == "web1"
        assert web1.hook("reconnect", xml=annotated(web1, "2203:7")) == DONE
        with pytest.raises(ConnectionError):
            ended.exchange("anybody?")
        assert kept.exchange("still there?") == "still there?"
        assert not sender.exchange(timeout=0.5).answered


def test_a_port_that_leads_elsewhere_by_now_ends_the_connections_to_where_it_led(
    client: Asker, node: Node
) -> None:
    web1 = node.guest("web1", "2202:7", serves="7/tcp-echo 22/tcp")
    web1.start()
    with client.tcp_session(NODE[4], 2202) as session:
        assert session.exchange("hello") == "hello"
        assert web1.hook("reconnect", xml=annotated(web1, "2202:22")) == DONE
        with pytest.raises(ConnectionError):
            session.exchange("anybody?")
        assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"


def remote(*publish: str) -> str:
    """The guest as the config has it, as one of another node."""
    return f'[[remote-guest]]\nname = "web1"\naddress = "10.5.5.11"\npublish = {[*publish]}\n'


def test_a_sync_that_takes_a_port_from_a_guest_ends_its_connections_and_says_so(
    client: Asker, make_node: NodeMaker
) -> None:
    node = make_node(remote("2202:7", "2203:7"))
    node.guest("web1", serves="7/tcp-echo")
    node.cgw("sync", check=False)
    with (
        own_mounts(node) as mounts,
        client.tcp_session(NODE[4], 2202) as ended,
        client.tcp_session(NODE[4], 2203) as kept,
    ):
        assert [ended.exchange("hello"), kept.exchange("hello")] == ["hello", "hello"]
        node.configure(remote("2203:7"))
        mounts.cgw("sync")
        assert 'sync: guest "web1": withdrawn *:2202/tcp -> 10.5.5.11:7' in mounts.syslog()
        with pytest.raises(ConnectionError):
            ended.exchange("anybody?")
        assert kept.exchange("still there?") == "still there?"
        node.configure("")
        mounts.cgw("sync")
        assert 'sync: guest "web1": withdrawn *:2203/tcp -> 10.5.5.11:7' in mounts.syslog()
    assert client.asks(NODE[4], 2203) == REFUSED

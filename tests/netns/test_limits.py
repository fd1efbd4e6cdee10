"""Limits for one client at one published port: what is over them gets no answer, and no other."""

import re
from contextlib import ExitStack

import pytest

from tests.lab.client import TcpSession
from tests.lab.network import guest_address
from tests.netns.asker import Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import CLIENT, FULL_NAT, NODE
from tests.netns.conftest import NodeMaker
from tests.netns.guest import DONE, Guest, annotated
from tests.netns.node import Node
from tests.netns.parameters import configs, families, protocols

pytestmark = pytest.mark.netns

RATE = "2202:22 limit 3/hour"
AT_ONCE = "2207:7 max-connections 2"


def answered(
    client: Asker, port: int, times: int, protocol: str = "tcp", family: int = 4
) -> list[bool]:
    """Whether each of several new connections gets an answer."""
    return [not client.is_unanswered(NODE[family], port, protocol) for _ in range(times)]


def limited(
    node: Node, *publish: str, family: int = 4, serves: str = "22/tcp 22/udp", octet: int = 0
) -> Guest:
    """A guest that has started, and has an echo server at TCP port 7."""
    guest = node.guest(f"web{octet or 1}", *publish, serves=serves, family=family, octet=octet)
    number = octet or 11
    guest.wire.serve({4: guest_address(number), 6: f"fd00:5::{number}"}[family], "7/tcp-echo")
    guest.start()
    return guest


def has_chains(node: Node) -> list[str]:
    """The chains of limits."""
    return sorted(re.findall(r"chain (limit_\S+) ", node.nft("list chains inet\n")))


@families
@configs
def test_new_connections_beyond_the_rate_get_no_answer(
    client: Asker, third: Asker, make_node: NodeMaker, config: str, family: int
) -> None:
    node = make_node(config)
    guest = limited(node, RATE, "2203:22", family=family)
    assert answered(client, 2202, 5, family=family) == [True, True, True, False, False]
    # Both are in one IPv6 network of 64 bits, so they are one client there.
    has_room = family == 4
    assert answered(third, 2202, 4, family=family) == [has_room, has_room, has_room, False]
    assert all(answered(client, 2203, 5, family=family)), "another port has no limit"
    assert_as_recorded(node)
    guest.stop()
    assert has_chains(node) == []


def test_a_client_that_waits_is_admitted_again(client: Asker, node: Node) -> None:
    limited(node, "2202:22 limit 1/second")
    assert False in answered(client, 2202, 4)
    # TCP itself tries again: the connection is late, and does not fail.
    assert client.asks(NODE[4], 2202).startswith("web1")


@families
@configs
def test_connections_at_once_are_limited_and_a_closed_one_makes_room(
    client: Asker, third: Asker, make_node: NodeMaker, config: str, family: int
) -> None:
    node = make_node(config)
    limited(node, AT_ONCE, family=family)

    def connect(asker: Asker, until_end: ExitStack) -> TcpSession:
        session = until_end.enter_context(asker.tcp_session(NODE[family], 2207, timeout=60))
        assert session.exchange("hello") == "hello"
        return session

    with ExitStack() as until_end:
        first, second = (connect(client, until_end) for _ in range(2))
        with pytest.raises(TimeoutError), client.tcp_session(NODE[family], 2207, timeout=1):
            pass
        if family == 4:  # in one IPv6 network of 64 bits, both are one client
            connect(third, until_end)
            connect(third, until_end)
        assert first.exchange("still") == second.exchange("still") == "still"
        first.close()
        connect(client, until_end)
        with pytest.raises(TimeoutError), client.tcp_session(NODE[family], 2207, timeout=1):
            pass


@protocols
def test_each_protocol_has_its_limits(client: Asker, node: Node, protocol: str) -> None:
    """Of UDP and SCTP, a tracked flow counts as a connection."""
    guest = node.guest("web1", f"2202:22/{protocol} limit 2/minute", serves=f"22/{protocol}")
    guest.start()
    assert answered(client, 2202, 4, protocol) == [True, True, False, False]


def test_an_open_flow_goes_on_beyond_the_rate(client: Asker, node: Node) -> None:
    limited(node, "2202:22/udp limit 1/hour", "2207:7 limit 1/hour")
    with (
        client.udp_sender(NODE[4], 2202) as sender,
        client.tcp_session(NODE[4], 2207) as session,
    ):
        for text in ("one", "two", "three"):
            assert sender.exchange(text).guest == "web1"
            assert session.exchange(text) == text


def test_each_port_of_a_range_has_its_limit_and_each_kind_of_port_can_have_one(
    client: Asker, node: Node
) -> None:
    limited(
        node,
        "8000-8009:8000 limit 2/hour",
        "9000-9001:22 limit 2/hour",
        f"2204:22 from {CLIENT[4]}/32 limit 1/hour",
        f"{NODE[4]}:2205:22 limit 1/hour",
        serves="22/tcp 8003/tcp 8004/tcp",
    )
    for port in (8003, 8004, 9000):
        assert answered(client, port, 3) == [True, True, False]
    assert answered(client, 2204, 2) == [True, False]
    assert answered(client, 2205, 2) == [True, False]
    assert_as_recorded(node)


def test_guests_with_the_same_limit_share_a_chain_and_not_their_clients(
    client: Asker, node: Node
) -> None:
    web1 = limited(node, RATE)
    web2 = limited(node, "2302:22 limit 3/hour", octet=12)
    assert has_chains(node) == ["limit_3_hour"]
    for port in (2202, 2302):
        assert answered(client, port, 4) == [True, True, True, False]
    web1.stop()
    assert has_chains(node) == ["limit_3_hour"]
    assert answered(client, 2302, 1) == [False]
    web2.stop()
    assert has_chains(node) == []


def test_a_limit_that_changes_ends_no_connection(client: Asker, node: Node) -> None:
    guest = limited(node, "2207:7", "2202:22/udp")
    with (
        client.tcp_session(NODE[4], 2207) as session,
        client.udp_sender(NODE[4], 2202) as sender,
    ):
        assert session.exchange("before") == "before"
        assert sender.exchange("before").guest == "web1"
        for publish in (
            ["2207:7 limit 1/hour", "2202:22/udp max-connections 1"],
            ["2207:7 limit 2/hour max-connections 5", "2202:22/udp"],
            ["2207:7", "2202:22/udp limit 5/second"],
        ):
            assert guest.hook("reconnect", xml=annotated(guest, *publish)) == DONE
            assert session.exchange("after") == "after"
            assert sender.exchange("after").guest == "web1"
            assert_as_recorded(node)
    assert has_chains(node) == ["limit_5_second"]


def test_limits_outlast_a_flush_and_a_stranger(client: Asker, node: Node) -> None:
    limited(node, RATE)
    for harm in (
        "flush ruleset",
        "flush chain inet cgw limit_3_hour",
        "flush map inet cgw limited4",
    ):
        node.nft(harm + "\n")
        assert "repaired" in node.cgw("sync", check=False).stdout
        assert_as_recorded(node)
        assert node.cgw("sync", check=False).stdout == ""
    assert False in answered(client, 2202, 4)
    # What a killed call has left is removed with the next change of the whole table.
    node.nft("add chain inet cgw limit_9_hour\nflush map inet cgw limited4\n")
    node.cgw("sync", check=False)
    assert has_chains(node) == ["limit_3_hour"]


def test_the_limits_are_shown(node: Node) -> None:
    limited(node, "2202:22 limit 10/second max-connections 20", "2203:22")
    rows = {row["listen_ports"][0]: row for row in node.status_rows()}
    assert (rows[2202]["limit"], rows[2202]["max_connections"]) == ("10/second", 20)
    assert "limit" not in rows[2203]
    assert "anywhere (10/second, 20 at once)" in node.cgw("status").stdout


def test_a_remote_guests_limits_hold_here(client: Asker, make_node: NodeMaker) -> None:
    remote = (
        f'[[remote-guest]]\nname = "web1"\naddress = "{guest_address(11)}"\n'
        'publish = ["2202:22/tcp+limit=2/hour"]\n'
    )
    node = make_node(FULL_NAT + remote)
    node.guest("web1", serves="22/tcp")
    node.cgw("sync", check=False)
    assert answered(client, 2202, 3) == [True, True, False]
    node.configure(FULL_NAT)
    node.cgw("sync", check=False)
    assert has_chains(node) == []

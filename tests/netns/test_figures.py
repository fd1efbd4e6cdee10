"""The figures of published ports, and the connections that are open now, with real traffic."""

import json
import re
import socket
import time
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest

from cgw_hooks.core.connection import SCTP_STATES
from cgw_hooks.core.record import Contents
from cgw_hooks.core.rules import counted, table
from cgw_hooks.core.rules.elements import map_names
from cgw_hooks.host import netlink, tracked_connections
from cgw_hooks.host.map_counters import read_counters
from cgw_hooks.host.nft import Nft
from cgw_hooks.host.tracked_connections import connections_to
from tests.lab.namespace import namespace
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node
from tests.netns.test_listing import PORTS
from tests.unit.builders import CLUSTER, port

pytestmark = pytest.mark.netns

WEB1 = "web1 saw 192.168.122.100"


def figures(node: Node, guest: str) -> list[dict[str, Any]]:
    """What `cgw status --figures --json` says of each port of a guest."""
    printed = json.loads(node.cgw("status", guest, "--figures", "--json", check=False).stdout)
    return [row["figures"] for row in printed["published"]]


def counts(node: Node, guest: str) -> list[int | None]:
    """The connections to each port of a guest."""
    return [each["connections"] for each in figures(node, guest)]


def flows(node: Node, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(node.cgw("flows", *arguments, "--json").stdout)[
        "flows"
    ]
    return found


def test_each_kind_of_port_is_counted_by_its_own_elements() -> None:
    """Each element is written with its own number: so a key of another one would be seen."""
    written = table.restore(CLUSTER, Contents(PORTS))
    numbers = iter(range(1, 1 << 20))
    lines = []
    for command in written.splitlines():
        line = command
        if line.startswith("add element inet cgw ") and " revision " not in line:
            start, _, rest = line.partition("{ ")
            elements = rest.removesuffix(" }").split(", ")
            counting = (
                e.replace(" : ", f" counter packets {next(numbers)} bytes 0 : ", 1)
                for e in elements
            )
            line = f"{start}{{ {', '.join(counting)} }}"
        lines.append(line)

    def read() -> dict[tuple[str, bytes], int]:
        Nft().apply("\n".join(lines) + "\n")
        return read_counters("cgw", map_names())

    with namespace("counters") as inside:
        found = inside.call(read)
    used = [key for port in PORTS for key in counted.keys(port)]
    assert len(used) == len(set(used)) == len(found) == next(numbers) - 1
    assert set(used) == set(found)
    total = sum(counted.connections(port, found) or 0 for port in PORTS)
    assert total == sum(range(1, len(found) + 1))


def test_connections_are_counted_for_each_port(node: Node, client: Asker) -> None:
    node.guest("web1", "2202:22", "5300-5309:53/udp", serves="22/tcp 53/udp 54/udp").start()
    assert counts(node, "web1") == [0, 0]
    for _ in range(3):
        assert client.asks(NODE[4], 2202) == WEB1
    for number in (5300, 5301):
        assert client.asks(NODE[4], number, "udp") == WEB1
    assert counts(node, "web1") == [3, 2]
    assert "CONNECTIONS" in node.cgw("status", "--figures").stdout
    assert "CONNECTIONS" not in node.cgw("status").stdout


def test_a_packet_of_a_connection_is_not_a_connection(node: Node, client: Asker) -> None:
    node.guest("web1", "2207:7", serves="7/tcp-echo").start()
    with client.tcp_session(NODE[4], 2207) as session:
        for _ in range(5):
            session.exchange("x" * 5000)
        assert counts(node, "web1") == [1]


def test_the_count_stays_when_other_guests_come_and_go(node: Node, client: Asker) -> None:
    """A single port, a range, a port for some clients: the kernel copies the maps of these two."""
    web1 = node.guest(
        "web1", "2202:22", "3000-3009:3000", "3100:22 from 192.168.122.0/24",
        serves="22/tcp 3001/tcp",
    )  # fmt: skip
    web1.start()
    for number in (2202, 3001, 3100):
        assert client.asks(NODE[4], number) == WEB1
    web2 = node.guest("web2", "2203:22", "4000-4009:4000", "4100:22 from 10.0.0.0/8")
    web2.start()
    assert counts(node, "web1") == [1, 1, 1]
    web2.stop()
    assert counts(node, "web1") == [1, 1, 1]
    node.cgw("sync", check=False)  # no hypervisor answers, so web1 stays
    assert counts(node, "web1") == [1, 1, 1]


def only(found: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(found) == 1, found
    return found[0]


def settings(node: Node, *names: str) -> None:
    """Let the kernel of the node count bytes (acct) or note times (timestamp)."""
    node.namespace.sysctl({f"net/netfilter/nf_conntrack_{name}": "1" for name in names})


@pytest.mark.parametrize("config", ["", FULL_NAT], ids=["no-config", "full-nat"])
def test_an_open_connection_tells_its_client_and_whom_the_guest_sees(
    make_node: NodeMaker, client: Asker, config: str
) -> None:
    node = make_node(config)
    node.guest("web1", "2207:7", "2202:22", serves="7/tcp-echo 22/tcp").start()
    assert flows(node) == []
    assert node.cgw("flows").stdout == "No connection is open.\n"
    assert client.asks(NODE[4], 2202).startswith("web1 saw ")  # it has ended
    with client.tcp_session(NODE[4], 2207) as session:
        session.exchange("hello")
        flow = only(flows(node, "web1"))
        assert flow["guest"] == "web1"
        assert flow["client"][0] == CLIENT[4]
        assert flow["listen"] == [NODE[4], 2207]
        assert flow["target"] == ["10.5.5.11", 7]
        seen = NODE_AMONG_GUESTS[4] if config else CLIENT[4]
        assert flow["seen_as"][0] == seen
        assert (flow["protocol"], flow["state"]) == ("tcp", "established")
        heading, line = node.cgw("flows", "web1").stdout.splitlines()
        assert "SEEN AS" in heading
        assert f"{NODE[4]}:2207/tcp  10.5.5.11:7 " in line
        assert ("itself" in line) == (not config)
        assert [(each["connections"], each["open"]) for each in figures(node, "web1")] == [
            (1, 0),
            (1, 1),
        ]
    wait_for(lambda: flows(node) == [])


def wait_for(happened: Any) -> None:
    """Wait until a condition holds: a close takes a moment."""
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("family", [4, 6])
def test_each_protocol_is_shown(node: Node, client: Asker, family: int) -> None:
    node.guest("web1", "2207:7", "2253:53/udp", serves="7/tcp-echo 53/udp", family=family).start()
    assert client.asks(NODE[family], 2253, "udp").startswith("web1 saw ")
    with client.tcp_session(NODE[family], 2207):
        tcp, udp = flows(node)
    assert (tcp["protocol"], tcp["state"]) == ("tcp", "established")
    assert (udp["protocol"], udp["state"]) == ("udp", "answered")
    assert {tcp["client"][0], udp["client"][0]} == {CLIENT[family]}
    assert [tcp["listen"], udp["listen"]] == [[NODE[family], 2207], [NODE[family], 2253]]


def test_the_state_of_sctp_is_read(node: Node, client: Asker) -> None:
    """The lab's association ends at once, so it is not open: the kernel's own list has it."""
    node.guest("web1", "2236:36/sctp", serves="36/sctp").start()
    assert client.asks(NODE[4], 2236, "sctp") == WEB1
    published = port(2236, 36, protocol="sctp")
    found = node.namespace.call(lambda: connections_to([published]))
    assert [(each.protocol, str(each.target)) for each in found] == [("sctp", "10.5.5.11:36")]
    assert found[0].state in SCTP_STATES[1:]


def test_bytes_are_known_only_where_the_kernel_counts_them(node: Node, client: Asker) -> None:
    node.guest("web1", "2207:7", serves="7/tcp-echo").start()
    with client.tcp_session(NODE[4], 2207):
        assert "sysctl -w net.netfilter.nf_conntrack_acct=1" in node.cgw("flows").stderr
        assert only(flows(node))["bytes_received"] is None
        assert only(figures(node, "web1"))["open_bytes_received"] is None
        said = node.cgw("status", "--figures").stderr
        assert "run: sysctl -w net.netfilter.nf_conntrack_acct=1" in said
        assert node.cgw("status").stderr == ""
    wait_for(lambda: flows(node) == [])
    assert only(figures(node, "web1"))["open_bytes_received"] is None
    settings(node, "acct")
    assert only(figures(node, "web1"))["open_bytes_received"] == 0
    with client.tcp_session(NODE[4], 2207) as session:
        session.exchange("x" * 20_000)
        flow = only(flows(node))
        assert 20_000 < flow["bytes_received"] < 30_000
        assert 20_000 < flow["bytes_sent"] < 30_000
        found = only(figures(node, "web1"))
        assert found["open_bytes_received"] >= flow["bytes_received"]
        assert "nf_conntrack_acct" not in node.cgw("flows").stderr
        assert re.search(r" 2\d kB +2\d kB ", node.cgw("flows").stdout)


def test_the_age_is_known_only_where_the_kernel_notes_it(node: Node, client: Asker) -> None:
    node.guest("web1", "2207:7", serves="7/tcp-echo").start()
    with client.tcp_session(NODE[4], 2207):
        assert only(flows(node))["began"] is None
        done = node.cgw("flows")
        assert "sysctl -w net.netfilter.nf_conntrack_timestamp=1" in done.stderr
        assert done.stdout.splitlines()[1].endswith(" -")
    wait_for(lambda: flows(node) == [])
    settings(node, "timestamp")
    with client.tcp_session(NODE[4], 2207):
        began = datetime.fromisoformat(only(flows(node))["began"]).timestamp()
        assert abs(time.time() - began) < 120
        assert re.search(r" \d+s$", node.cgw("flows").stdout.splitlines()[1])


def test_a_guest_has_its_own_connections_and_nobody_elses(node: Node, client: Asker) -> None:
    node.guest("web1", "2207:7", serves="7/tcp-echo").start()
    node.guest("web2", "2208:7", serves="7/tcp-echo").start()
    node.serve(NODE[4], "2209/tcp-echo")
    with ExitStack() as until_end:
        for number in (2207, 2208, 2209):
            until_end.enter_context(client.tcp_session(NODE[4], number))
        assert [each["guest"] for each in flows(node)] == ["web1", "web2"]
        assert [each["guest"] for each in flows(node, "web2")] == ["web2"]
    unknown = node.cgw("flows", "web3", check=False)
    assert (unknown.returncode, unknown.stdout) == (8, "")
    assert "web3" in unknown.stderr


def other_order(tuple_of_flow: bytes) -> bytes:
    """The same attributes in another order, as a later kernel may write them."""
    parts = netlink.attributes(tuple_of_flow)
    nests = [
        netlink.nested(kind, *(netlink.attribute(k, bytes(v)) for k, v in reversed(inner.items())))
        for kind, nest in parts.items()
        for inner in [netlink.attributes(nest)]
    ]
    return b"".join(reversed(nests))


@pytest.mark.parametrize("family", [4, 6])
def test_another_order_of_attributes_is_read_as_well(
    node: Node, client: Asker, family: int
) -> None:
    node.guest("web1", "2207:7", serves="7/tcp-echo", family=family).start()
    published = port(2207, 7, target="fd00:5::11" if family == 6 else "10.5.5.11")
    (reader,) = tracked_connections._readers([published]).values()  # noqa: SLF001

    def payloads() -> list[bytes]:
        header = bytes([socket.AF_INET6 if family == 6 else socket.AF_INET, 0, 0, 0])
        with netlink.Channel(netlink.NETFILTER) as channel:
            return channel.dump(1 << 8 | 1, header, bytes)

    with client.tcp_session(NODE[family], 2207):
        dumped = node.namespace.call(payloads)
    found = []
    for payload in dumped:
        parts = netlink.attributes(payload[4:])
        changed = b"".join(
            netlink.nested(kind, other_order(bytes(value)))
            if kind in {1, 2}
            else netlink.attribute(kind, bytes(value))
            for kind, value in parts.items()
        )
        usual = reader.read(memoryview(payload))
        assert reader.read(memoryview(payload[:4] + changed)) == usual
        found.append(usual)
    assert [str(each.listen) for each in found if each] in (
        [f"{NODE[4]}:2207"], [f"[{NODE[6]}]:2207"],
    )  # fmt: skip

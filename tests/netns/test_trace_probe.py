"""`cgw trace --probe`: the client is a network namespace of the trace's own."""

import json
import os
import signal

import pytest

from tests.full import extended
from tests.libvirt.waiting import eventually
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NONE
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node
from tests.netns.parameters import configs, families
from tests.netns.test_trace import ANSWERED, DEAF
from tests.netns.tracing import Told, Tracing, trace_tables

pytestmark = pytest.mark.netns

FREE = {4: "192.168.122.77", 6: "fd00:122::77"}


def probe(node: Node, subject: str, *options: str) -> tuple[str, Told]:
    """What it says first, and what it tells."""
    tracing = Tracing(node, subject, "--probe", *options)
    told = tracing.told()
    assert nothing_is_left(node)
    return tracing.first_line, told


def nothing_is_left(node: Node) -> bool:
    """Whether no table, device or route of a probe is there."""
    links = json.loads(node.namespace.run(["ip", "-json", "link"]).stdout)
    routes = [
        route
        for family in ("-4", "-6")
        for route in json.loads(node.namespace.run(["ip", family, "-json", "route"]).stdout)
    ]
    devices = [link["ifname"] for link in links] + [route["dev"] for route in routes]
    return trace_tables(node) == [] and not any(d.startswith("cgwp") for d in devices)


@configs
@families
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_probe_reaches_the_guest(
    make_node: NodeMaker, protocol: str, family: int, config: str
) -> None:
    node = make_node(config)
    service = f"80/{protocol}"
    node.guest("web1", f"8080:{service}", serves=service, family=family).start()
    first, told = probe(node, "web1:8080")
    assert "the probe comes in by a device of its own, cgwp" in first
    assert (told.exit_code, told.end) == (0, ANSWERED), told.output
    source = "198.18." if family == 4 else "[2001:2:"
    assert told.lines[0].startswith(f"client {source}")


@pytest.mark.parametrize("family", [4, extended(6)])
def test_a_free_address_makes_it_a_host_of_the_uplink_s_bridge(
    make_node: NodeMaker, family: int
) -> None:
    node = make_node(FULL_NAT)
    node.guest("web1", "8080:80", serves="80/tcp", family=family).start()
    first, told = probe(node, "web1:8080", "--from", FREE[family])
    assert first == f"the probe is a host on xenbr0, with the address {FREE[family]}"
    assert (told.exit_code, told.end) == (0, ANSWERED), told.output
    assert "came in by xenbr0 (cgwp" in told.lines[0]


def test_an_address_that_a_host_has_is_refused(client: Asker, node: Node) -> None:
    del client
    node.guest("web1", "8080:80", serves="80/tcp").start()
    for address, message in (
        (CLIENT[4], f"another host has the address {CLIENT[4]}"),
        (NODE[4], f"{NODE[4]} is an address of this host"),
        ("192.0.2.0/24", "a probe has one address"),
        (FREE[6], "the port is not published for IPv6"),
    ):
        first, told = probe(node, "web1:8080", "--from", address)
        assert message in first
        assert told.exit_code == 1


def test_a_port_for_some_sources(node: Node) -> None:
    node.guest("web1", "8080:80 from 203.0.113.0/24", serves="80/tcp").start()
    first, told = probe(node, "web1:8080")
    assert "the port admits clients of 203.0.113.0/24 only" in first
    assert told.exit_code == 1
    _, told = probe(node, "web1:8080", "--from", "203.0.113.9")
    assert (told.exit_code, told.end) == (0, ANSWERED), told.output
    _, told = probe(node, "web1:8080", "--from", "198.51.100.9")
    assert "198.51.100.9 may not use" in told.end


@pytest.mark.extended
def test_a_silent_guest_and_one_that_refuses(node: Node) -> None:
    web1 = node.guest("web1", "8080:80", "8081:81", serves="80/tcp")
    web1.start()
    _, told = probe(node, "web1:8081")
    assert "has answered that nothing listens there" in told.end
    web1.wire.namespace.run(["nft", DEAF])
    _, told = probe(node, "web1:8080")
    assert "and no answer came back" in told.end


@pytest.mark.extended
def test_a_node_that_does_not_forward_does_not_forward_the_probe_either(
    make_node: NodeMaker,
) -> None:
    node = make_node(NONE)
    node.guest("web1", "8080:80", serves="80/tcp").start()
    node.namespace.sysctl({"net/ipv4/conf/xenbr0/forwarding": "0"})
    _, told = probe(node, "web1:8080")
    assert told.exit_code == 1
    assert "discarded" in told.end or "does not forward" in told.end


@pytest.mark.parametrize("number", [signal.SIGKILL, extended(signal.SIGINT)])
def test_nothing_is_left_of_a_probe_that_is_ended(node: Node, number: int) -> None:
    web1 = node.guest("web1", "8080:80", serves="80/tcp")
    web1.wire.namespace.run(["nft", DEAF])
    web1.start()
    tracing = Tracing(node, "web1:8080", "--probe")
    assert not nothing_is_left(node)
    os.kill(tracing.process.pid, number)
    tracing.process.communicate()
    assert eventually(lambda: nothing_is_left(node))

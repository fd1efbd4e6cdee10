"""A node with [[guest-network]] in its config also runs guests on other networks, libvirt's own.

They are published as on any node, and what `cgw node up` and `down` do is not their concern.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab.domain import guest_mac
from tests.lab.namespace import namespace
from tests.lab.network import GUEST_BRIDGE
from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS
from tests.netns.conftest import NodeMaker
from tests.netns.guest import DONE, Guest
from tests.netns.node import Node

pytestmark = pytest.mark.netns

ADDRESS = "192.168.123.11"
SEEN = f"libvirts saw {CLIENT[4]}"
INVALID = 3


@pytest.fixture
def node(make_node: NodeMaker) -> Node:
    """A gateway, with the bridge of a libvirt network beside its guest bridge."""
    made = make_node(FULL_NAT)
    made.namespace.ip(
        "link add virbr0 type bridge\nlink set virbr0 up\naddress add 192.168.123.1/24 dev virbr0\n"
    )
    return made


@pytest.fixture
def libvirts(node: Node) -> Iterator[Guest]:
    """A guest on the libvirt network, which answers at port 22."""
    with ExitStack() as until_end:
        inside = until_end.enter_context(namespace("libvirts"))
        node.namespace.ip(
            f"link add vnet0 master virbr0 type veth peer name eth0 netns {inside.name}\n"
            "link set vnet0 up\n"
        )
        inside.ip(
            f"link set eth0 address {guest_mac(31)} up\n"
            f"address add {ADDRESS}/24 dev eth0\n"
            "route add default via 192.168.123.1\n"
        )
        Asker("libvirts", inside, until_end).serve(ADDRESS, "22/tcp")
        yield on_libvirts_network(node, "libvirts", ADDRESS, "2202:22")
        node.stop_all_guests()


def on_libvirts_network(node: Node, name: str, address: str, *publish: str) -> Guest:
    """A guest in whose running definition libvirt names the bridge."""
    guest = node.guest(name, *publish, octet=31, interface="default", addresses=address)
    named = '<source network="default" bridge="virbr0"/>'
    xml = guest.xml.replace('<source network="default"/>', named)
    assert named in xml
    return dataclasses.replace(guest, xml=xml)


@pytest.fixture
def web1(node: Node) -> Guest:
    """A guest of the guest network, started."""
    made = node.guest("web1", "2203:22", serves="22/tcp")
    made.start()
    return made


def test_a_guest_on_another_network_starts_and_is_published(
    client: Asker, node: Node, libvirts: Guest
) -> None:
    """It sees the client: FULL-NAT is the guest network's own rule."""
    libvirts.start()
    assert client.asks(NODE[4], 2202) == SEEN
    assert node.states() == {"libvirts": "published"}
    libvirts.stop()
    assert client.asks(NODE[4], 2202) == REFUSED


@pytest.mark.parametrize("address", ["192.168.123.1", "192.168.123.255", "192.168.122.200"])
def test_what_is_no_address_of_a_guest_there_is_refused(node: Node, address: str) -> None:
    """The host's own, the broadcast address, and one on another link."""
    web9 = on_libvirts_network(node, "web9", address, "2202:22")
    node.namespace.ip(
        "address delete 192.168.123.1/24 dev virbr0\n"
        "address add 192.168.123.1/24 broadcast + dev virbr0\n"
    )
    refused = web9.hook("prepare")
    assert refused.exit_code == INVALID
    assert f'guest "web9": <publish address="{address}">' in refused.complaint


def test_down_leaves_it_published_and_withdraws_the_guest_networks_guests(
    client: Asker, node: Node, libvirts: Guest, web1: Guest
) -> None:
    libvirts.start()
    node.cgw("node", "up")
    assert client.asks(NODE[4], 2202) == SEEN
    assert client.asks(NODE[4], 2203) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
    told = node.cgw("node", "down")
    assert "withdrew guest web1" in told.stdout
    assert "libvirts" not in told.stdout
    assert client.asks(NODE[4], 2202) == SEEN
    assert client.asks(NODE[4], 2203) == REFUSED
    assert set(node.states()) == {"libvirts"}
    web1.stop()


def test_down_leaves_established_connections_to_it_alone(
    client: Asker, node: Node, libvirts: Guest
) -> None:
    libvirts.start()
    node.cgw("node", "up")
    before = node.records()
    node.cgw("node", "down")
    assert node.records() == before
    assert client.asks(NODE[4], 2202) == SEEN
    node.cgw("node", "down")
    assert client.asks(NODE[4], 2202) == SEEN


def test_down_after_an_up_that_failed_leaves_it_published(
    client: Asker, node: Node, libvirts: Guest
) -> None:
    libvirts.start()
    node.configure(FULL_NAT.replace(GUEST_BRIDGE, "guestbr7"))
    assert node.cgw("node", "up", check=False).returncode != 0
    assert client.asks(NODE[4], 2202) == SEEN
    node.cgw("node", "down")
    assert client.asks(NODE[4], 2202) == SEEN
    node.configure(FULL_NAT)
    assert libvirts.hook("reconnect") == DONE
    assert client.asks(NODE[4], 2202) == SEEN


@pytest.mark.parametrize("operation", ["reconnect", "another starts", "another stops", "sync"])
def test_calls_that_follow_a_down_keep_it_published(
    client: Asker, node: Node, libvirts: Guest, operation: str
) -> None:
    other = node.guest("web2", "2204:22", serves="22/tcp", octet=12)
    if operation == "another stops":
        other.start()
    libvirts.start()
    node.cgw("node", "up")
    node.cgw("node", "down")
    if operation == "sync":
        node.cgw("sync", check=False)
    elif operation == "reconnect":
        assert libvirts.hook("reconnect") == DONE
    elif operation == "another starts":
        other.start()
        assert client.asks(NODE[4], 2204).startswith("web2")
    else:
        other.stop()
    assert client.asks(NODE[4], 2202) == SEEN
    libvirts.stop()
    assert client.asks(NODE[4], 2202) == REFUSED
    libvirts.start()
    assert client.asks(NODE[4], 2202) == SEEN

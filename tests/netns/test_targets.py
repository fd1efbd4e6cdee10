"""What an annotation may aim at, and what it may claim: the rest is refused at prepare.

A target is an address that the node reaches directly on a link where guests live. Otherwise a
published port would reach services of the node, of its cloud, or of somebody else's network.
"""

import pytest

from tests.lab.network import CLIENT_ADDRESS, GUEST_BRIDGE
from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import CLIENT, FULL_NAT, GATEWAY, NODE, NODE_AMONG_GUESTS, THIRD
from tests.netns.conftest import NodeMaker
from tests.netns.guest import DONE, Finished, Guest
from tests.netns.node import Node

pytestmark = pytest.mark.netns

INVALID = 3
_ROUTER = "10.5.5.12"
_BEHIND_ROUTER = "10.9.0.7"


@pytest.fixture
def node(make_node: NodeMaker) -> Node:
    """A node without a config, with a default route and with a router among its guests."""
    made = make_node()
    made.namespace.ip(
        f"route add default via {CLIENT_ADDRESS}\n"
        f"route add 10.9.0.0/24 via {_ROUTER}\n"
        "route add blackhole 10.8.0.0/24\n"
        # As the kernel has it where an address was given with "broadcast +" (iproute2, libvirt).
        f"address add 10.7.0.1/24 broadcast + dev {GUEST_BRIDGE}\n"
    )
    return made


def refused(node: Node, address: str, *publish: str) -> Finished:
    """What prepare says of a guest with this address; nothing may have changed."""
    before = node.ruleset(), node.files()
    finished = node.guest("web9", *(publish or ["2209:22"]), addresses=address).hook("prepare")
    assert (node.ruleset(), node.files()) == before
    return finished


def assert_one_line(finished: Finished, *shown: str) -> None:
    """The call is refused, in one line that names the guest, the element and what is wrong."""
    assert finished.exit_code == INVALID
    assert finished.complaint.startswith('cgw: guest "web9": <'), finished.complaint
    assert finished.complaint.count("\n") == 0
    for words in shown:
        assert words in finished.complaint


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("8.8.8.8", f"only through a router ({CLIENT_ADDRESS})"),
        ("169.254.169.254", "link-local addresses are not for guests"),
        (NODE[4], "that is a local address of this node"),
        (NODE[6], "that is a local address of this node"),
        (NODE_AMONG_GUESTS[4], "that is a local address of this node"),
        (GATEWAY[6], "that is a local address of this node"),
        ("10.7.0.255", "that is a broadcast address of this node"),
        ("fd00:5::", "that is a anycast address of this node"),
        (_BEHIND_ROUTER, f"only through a router ({_ROUTER})"),
        ("10.8.0.7", "this node has no route to it"),
        ("2001:db8::7", "this node has no route to it"),
        (THIRD[4], 'it lies behind "xenbr0", where the guest has no interface'),
        (THIRD[6], 'it lies behind "xenbr0", where the guest has no interface'),
    ],
)
def test_an_address_that_is_no_guests_is_refused(node: Node, address: str, shown: str) -> None:
    assert_one_line(refused(node, address), f'<publish address="{address}">', shown)


@pytest.mark.parametrize("address", ["255.255.255.255", "0.0.0.0", "224.0.0.1", "127.0.0.1", "::1",
                                     "ff02::1", "fe80::1", "::ffff:10.5.5.11"])  # fmt: skip
def test_what_is_never_a_hosts_address_is_refused(node: Node, address: str) -> None:
    assert_one_line(refused(node, address), "address", address)


def test_a_service_of_the_node_on_a_bridge_is_not_reached_from_outside(
    client: Asker, node: Node
) -> None:
    """As the dnsmasq of libvirt's network is bound to 192.168.122.1."""
    node.serve(NODE_AMONG_GUESTS[4], "80/tcp")
    web1 = node.guest("web1", "8080:80", addresses=NODE_AMONG_GUESTS[4])
    assert web1.hook("prepare").exit_code == INVALID
    assert web1.hook("started") == DONE  # a hook that is called all the same publishes nothing
    assert client.asks(NODE[4], 8080) == REFUSED


def test_an_edit_that_aims_elsewhere_publishes_nothing_new(client: Asker, node: Node) -> None:
    """At reconnect nothing can be refused: what was published stays, with a problem."""
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web1.start()
    edited = web1.xml.replace('address="10.5.5.11"', 'address="8.8.8.8"')
    assert edited != web1.xml
    assert web1.hook("reconnect", xml=edited) == DONE
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert "only through a router" in str(node.status()["web1"]["problem"])
    assert "8.8.8.8" not in node.our_table()


@pytest.mark.parametrize("address", ["8.8.8.8", NODE[4], GATEWAY[4]])
def test_a_remote_guest_elsewhere_than_on_a_guest_link_harms_itself_alone(
    client: Asker, node: Node, address: str
) -> None:
    node.guest("web1", serves="22/tcp")
    remote = '[[remote-guest]]\nname = "{}"\naddress = "{}"\npublish = ["{}:22"]\n'
    node.configure(remote.format("web1", "10.5.5.11", 2202) + remote.format("bad", address, 2203))
    told = node.cgw("sync", check=False)
    assert f'remote-guest "bad": <publish address="{address}">' in told.stderr
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert client.asks(NODE[4], 2203) == REFUSED
    node.configure("")
    node.cgw("sync", check=False)


# -- the policy ------------------------------------------------------------------------------

POLICY = f"""\
[policy]
listen-ports = ["2200-2299"]
listen-addresses = ["{NODE[4]}"]
sources = ["192.168.122.0/25"]
"""
WITHIN = f"{NODE[4]}:2202:22/tcp from 192.168.122.64/26"


@pytest.fixture
def limited(make_node: NodeMaker) -> Node:
    """A node whose administrator limits what may be published."""
    return make_node(POLICY)


def test_what_the_policy_allows_is_published(client: Asker, limited: Node, third: Asker) -> None:
    web1 = limited.guest("web1", WITHIN, serves="22/tcp")
    web1.start()
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert third.asks(NODE[4], 2202) == REFUSED


@pytest.mark.parametrize(
    ("publish", "key"),
    [
        (f"{NODE[4]}:2199-2202:22/tcp from 192.168.122.64/26", "policy.listen-ports"),
        (f"{NODE[4]}:22:22/tcp from 192.168.122.64/26", "policy.listen-ports"),
        ("2202:22/tcp from 192.168.122.64/26", "policy.listen-addresses"),
        ("192.168.122.50:2202:22/tcp from 192.168.122.64/26", "policy.listen-addresses"),
        (f"{NODE[4]}:2202:22", "policy.sources"),
        (f"{NODE[4]}:2202:22/tcp from 192.168.122.0/24", "policy.sources"),
        (f"{NODE[4]}:2202:22/tcp from 192.168.122.0/26 10.0.0.0/8", "policy.sources"),
    ],
)
def test_what_the_policy_does_not_allow_is_refused(limited: Node, publish: str, key: str) -> None:
    finished = refused(limited, "10.5.5.11", publish)
    assert finished.exit_code == INVALID
    assert finished.complaint.startswith('cgw: guest "web9": ')
    assert finished.complaint.count("\n") == 0
    assert key in finished.complaint


def test_the_policy_of_a_gateway_holds_for_addresses_of_both_families(make_node: NodeMaker) -> None:
    """An IPv6 port at any address lies outside a list that names IPv4 addresses alone."""
    node = make_node(f'{FULL_NAT}\n[policy]\nlisten-addresses = ["0.0.0.0/0"]\n')
    six: Guest = node.guest("web1", "2202:22", family=6)
    assert "policy.listen-addresses" in six.hook("prepare").complaint
    assert node.guest("web2", "2202:22").hook("prepare") == DONE

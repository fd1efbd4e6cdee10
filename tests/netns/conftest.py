"""The network of these tests, and the fixtures that build it.

    client ------- uplink0 ------------ xenbr0 [node] guestbr0 ------ web1   10.5.5.11
    192.168.122.100   |             .11                .251 (node)    web2   10.5.5.12
    fd00:122::100     |       fd00:122::11             .254 (gateway) ...    fd00:5::11 ...
                    third                        fd00:5::251, ::254
                    192.168.122.200

uplink 192.168.122.0/24 and fd00:122::/64, guests 10.5.5.0/24 and fd00:5::/64.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lab import network
from tests.lab.namespace import namespace, sweep_namespaces
from tests.needs import fail_without
from tests.netns.asker import Asker
from tests.netns.clean import assert_clean
from tests.netns.configs import NODE
from tests.netns.node import CGW, Node

NodeMaker = Callable[..., Node]
_NEEDED_PROGRAMS = ("ip", "nft", "nsenter", "iptables", "ip6tables")


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Fail with one line if the machine lacks something for this tier."""
    fail_without("netns", "the netns tier makes network namespaces", _NEEDED_PROGRAMS, called=CGW)
    sweep_namespaces()


@contextmanager
def uplink_client() -> Iterator[Asker]:
    """The client, with the uplink network's switch in it."""
    with ExitStack() as until_end:
        inside = until_end.enter_context(namespace("client"))
        network.wire_client(inside)
        yield Asker("client", inside, until_end)


@contextmanager
def uplink_node(
    client: Asker, folder: Path, config: str = "", program: Path = CGW
) -> Iterator[Node]:
    """A node on the client's uplink. At the end all guests are stopped, and nothing may be left."""
    with ExitStack() as until_end:
        inside = until_end.enter_context(namespace("node"))
        network.wire_node(inside, client.namespace, network.NodeAddresses(1))
        node = Node(inside, folder, until_end, program)
        node.configure(config)
        yield node
        node.stop_all_guests()
        assert_clean(node)


@pytest.fixture
def client() -> Iterator[Asker]:
    """The client outside, 192.168.122.100."""
    with uplink_client() as made:
        yield made


@pytest.fixture
def make_node(client: Asker, tmp_path: Path) -> Iterator[NodeMaker]:
    """Make the node: `make_node(FULL_NAT)`, or without a config file."""
    with ExitStack() as until_end:

        def make(config: str = "", program: Path = CGW) -> Node:
            return until_end.enter_context(uplink_node(client, tmp_path, config, program))

        yield make


@pytest.fixture
def node(make_node: NodeMaker) -> Node:
    """A node without a config file."""
    return make_node()


@pytest.fixture
def third(client: Asker) -> Iterator[Asker]:
    """Another host on the uplink, 192.168.122.200 and fd00:122::200."""
    with ExitStack() as until_end:
        inside = until_end.enter_context(namespace("third"))
        inside.sysctl({"net/ipv6/conf/default/accept_dad": "0"})
        inside.ip("link add eth0 type veth peer name third netns " + client.namespace.name)
        client.namespace.ip("link set third master uplink0 up")
        inside.ip(
            "link set eth0 up\n"
            "address add 192.168.122.200/24 dev eth0\n"
            "address add fd00:122::200/64 dev eth0 nodad\n"
            # Guests whose addresses are not translated also get their answers.
            f"route add {network.GUEST_SUBNET} via {NODE[4]}\n"
            f"route add {network.GUEST_SUBNET6} via {NODE[6]}\n"
        )
        yield Asker("third", inside, until_end)

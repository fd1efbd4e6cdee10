"""Port forwards that somebody else made on the same host: cgw must leave their packets alone.

The client and the server of such a forward are on one device of the node. The server has a route to
the client by way of the node, so the forward works without SNAT, and the server sees the client's
own address. A guest of ours is published at the same time.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.lab.network import GUEST_SUBNET, GUEST_SUBNET6, guest_address, guest_address6
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, FULL_NAT, GATEWAY, NODE, NODE_AMONG_GUESTS, NONE, THIRD
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node
from tests.netns.parameters import bridgings, families

pytestmark = pytest.mark.netns

GUEST: dict[int, Callable[[int], str]] = {4: guest_address, 6: guest_address6}
PUBLISHED = 2202
SERVED = 80
#: An address that is routed to the node, and that the node itself does not have.
ROUTED = {4: "203.0.113.5", 6: "2001:db8::5"}


class Forward(NamedTuple):
    """An admin's port forward: where clients ask, and the priority of its nat chain."""

    address: dict[int, str]
    port: int
    priority: str

    def rules(self, family: int, server: str) -> str:
        """Make it as a table of the admin's own."""
        ip = {4: "ip", 6: "ip6"}[family]
        to = f"[{server}]:{SERVED}" if family == 6 else f"{server}:{SERVED}"
        return f"""
            table {ip} admin {{
              chain prerouting {{
                type nat hook prerouting priority {self.priority};
                {ip} daddr {self.address[family]} tcp dport {self.port} dnat to {to}
              }}
            }}
        """


FORWARDS = {
    "of another port": Forward(NODE, 8443, "dstnat"),
    "of the same port at another address": Forward(ROUTED, PUBLISHED, "dstnat"),
    "of the same port, by a chain that comes first": Forward(NODE, PUBLISHED, "-150"),
}
forwards = pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS)


def answers_by_way_of_the_node(server: Asker, device: str, client: str, node: str) -> None:
    """Route a server's answers to its neighbour, the client, through the node."""
    # The node tells a host of the shorter way (ICMP redirect); this one must not listen to that.
    names = [f"net/ipv{v}/conf/{d}/accept_redirects" for v in (4, 6) for d in ("all", device)]
    server.namespace.sysctl(dict.fromkeys(names, "0"))
    server.namespace.ip(f"route add {client} via {node}")


@forwards
@families
def test_a_server_on_the_uplink_sees_the_client(
    client: Asker, third: Asker, make_node: NodeMaker, family: int, forward: Forward
) -> None:
    node = make_node(FULL_NAT)
    # With br_netfilter the kernel never bridges a packet back to the port that it came from.
    node.pass_bridged_packets_to_rules(False)
    node.nft(forward.rules(family, CLIENT[family]))
    client.serve(CLIENT[family], f"{SERVED}/tcp")
    answers_by_way_of_the_node(client, "uplink0", THIRD[family], NODE[family])
    third.namespace.ip(f"route add {ROUTED[family]} via {NODE[family]}")
    _publish_web1(node, family)
    answer = third.asks(forward.address[family], forward.port)
    assert answer == f"client saw {THIRD[family]}"


@forwards
@bridgings
@families
def test_a_server_on_the_guest_bridge_sees_the_client(
    make_node: NodeMaker, family: int, bridging: bool, forward: Forward
) -> None:
    """The server and the client are guests that cgw has nothing to do with."""
    node = make_node(NONE)
    node.pass_bridged_packets_to_rules(bridging)
    node.nft(forward.rules(family, GUEST[family](13)))
    asker = node.guest("asker", serves="22/tcp", octet=12, family=family)
    server = node.guest("server", serves=f"{SERVED}/tcp", octet=13, family=family)
    answers_by_way_of_the_node(server.wire, "eth0", GUEST[family](12), GATEWAY[family])
    _publish_web1(node, family)
    answer = asker.asks(forward.address[family], forward.port)
    assert answer == f"server saw {GUEST[family](12)}"


@bridgings
@families
def test_a_published_port_still_answers_its_own_link(
    client: Asker, make_node: NodeMaker, family: int, bridging: bool
) -> None:
    """Hairpin, for each kind of map: any address, one address, limited to sources; and ranges."""
    node = make_node(NONE)
    node.pass_bridged_packets_to_rules(bridging)
    at = f"[{NODE[6]}]" if family == 6 else NODE[4]
    subnet = {4: GUEST_SUBNET, 6: GUEST_SUBNET6}[family]
    limited = [f"2204:22 from {subnet}", f"{at}:2205:22 from {subnet}"]
    ranges = ["3000-3009:3000", f"{at}:3010-3019:3010", f"3020-3029:3020 from {subnet}"]
    ports = [f"{PUBLISHED}:22", f"{at}:2203:22", *limited, *ranges]
    served = "22/tcp 3001/tcp 3011/tcp 3021/tcp"
    web1 = node.guest("web1", *ports, serves=served, family=family)
    asker = node.guest("asker", serves="22/tcp", octet=12, family=family)
    web1.reflect_on_port()  # or br_netfilter hands the guest no packet of its own back
    web1.start()
    seen = {f"web1 saw {address[family]}" for address in (NODE_AMONG_GUESTS, GATEWAY)}
    for port in (PUBLISHED, 2203, 2204, 2205, 3001, 3011, 3021):
        assert asker.asks(NODE[family], port) in seen
        assert web1.asks(NODE[family], port) in seen
    assert client.asks(NODE[family], PUBLISHED) == f"web1 saw {CLIENT[family]}"


def _publish_web1(node: Node, family: int) -> None:
    web1 = node.guest("web1", f"{PUBLISHED}:22", serves="22/tcp", octet=11, family=family)
    web1.start()
    assert node.states() == {"web1": "published"}

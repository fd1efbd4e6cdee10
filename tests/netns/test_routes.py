"""The way that a node would send a packet: a real kernel's routing tables."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from cgw_hooks.core.policy import Route
from cgw_hooks.host.routes import route_to
from tests.lab.namespace import Namespace, namespace
from tests.netns.parameters import families

pytestmark = pytest.mark.netns

OWN = {4: "192.0.2.1", 6: "2001:db8::1"}
NEIGHBOUR = {4: "192.0.2.7", 6: "2001:db8::7"}
ROUTER = {4: "192.0.2.254", 6: "2001:db8::254"}
BEYOND = {4: "198.51.100.7", 6: "2001:db8:1::7"}
#: Another network, whose bridge has no port yet.
ON_EMPTY_BRIDGE = {4: "10.5.5.11", 6: "fd00:5::11"}
ELSEWHERE = {4: "203.0.113.7", 6: "2001:db8:9::7"}

RouteTo = Callable[[str], Route | None]


@pytest.fixture
def node() -> Iterator[Namespace]:
    """A node with one link to others, 192.0.2.0/24, and an empty bridge for guests."""
    with namespace("routes") as inside:
        inside.sysctl({"net/ipv6/conf/default/accept_dad": "0"})
        inside.ip(
            "link add eth0 type veth peer name eth0peer\n"
            "link set eth0 up\n"
            "link set eth0peer up\n"
            f"address add {OWN[4]}/24 broadcast 192.0.2.255 dev eth0\n"
            f"address add {OWN[6]}/64 dev eth0 nodad\n"
            "link add virbr0 type bridge\n"
            "link set virbr0 up\n"
            "address add 10.5.5.254/24 dev virbr0\n"
            "address add fd00:5::254/64 dev virbr0 nodad\n"
        )
        yield inside


@pytest.fixture
def way(node: Namespace) -> RouteTo:
    """Ask for the route as a process of the node."""
    return lambda address: node.call(lambda: route_to(ip_address(address)))


@families
def test_a_neighbour_is_reached_directly(way: RouteTo, family: int) -> None:
    assert Route("unicast", "eth0", None) == way(NEIGHBOUR[family])


@families
def test_a_host_elsewhere_is_reached_through_its_router(
    node: Namespace, way: RouteTo, family: int
) -> None:
    node.ip(f"route add {BEYOND[family]} via {ROUTER[family]}\n")
    assert Route("unicast", "eth0", ip_address(ROUTER[family])) == way(BEYOND[family])


@families
def test_the_default_route_counts(node: Namespace, way: RouteTo, family: int) -> None:
    node.ip(f"route add default via {ROUTER[family]}\n")
    assert Route("unicast", "eth0", ip_address(ROUTER[family])) == way(ELSEWHERE[family])


def test_an_ipv4_host_behind_a_router_with_an_ipv6_address(node: Namespace, way: RouteTo) -> None:
    node.ip(f"route add {BEYOND[4]} via inet6 {ROUTER[6]} dev eth0\n")
    assert Route("unicast", "eth0", ip_address(ROUTER[6])) == way(BEYOND[4])


@families
def test_of_several_routers_one_is_told(node: Namespace, way: RouteTo, family: int) -> None:
    second = NEIGHBOUR[family]
    node.ip(f"route add {BEYOND[family]} nexthop via {ROUTER[family]} nexthop via {second}\n")
    found = way(BEYOND[family])
    assert found
    assert (found.kind, found.device) == ("unicast", "eth0")
    assert str(found.gateway) in {ROUTER[family], second}


@families
def test_an_address_of_the_node_is_local(way: RouteTo, family: int) -> None:
    found = way(OWN[family])
    assert found
    assert (found.kind, found.gateway) == ("local", None)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_local(way: RouteTo, address: str) -> None:
    found = way(address)
    assert found
    assert (found.kind, found.device) == ("local", "lo")


def test_a_broadcast_address_is_told(way: RouteTo) -> None:
    assert Route("broadcast", "eth0", None) == way("192.0.2.255")


def test_the_broadcast_address_of_an_empty_bridge_is_told(way: RouteTo) -> None:
    assert Route("broadcast", "virbr0", None) == way("10.5.5.255")


def test_the_address_of_all_routers_of_a_link_is_anycast(node: Namespace, way: RouteTo) -> None:
    """Subnet-router anycast, RFC 4291 section 2.6.1; the kernel has it where it forwards."""
    node.sysctl({"net/ipv6/conf/all/forwarding": "1"})
    found = way("2001:db8::")
    assert found
    assert found.kind == "anycast"


@pytest.mark.parametrize("address", ["224.0.0.251", "ff02::fb"])
def test_a_multicast_address_is_told(node: Namespace, way: RouteTo, address: str) -> None:
    node.ip("route add default dev eth0\n")
    found = way(address)
    assert found
    assert found.kind == "multicast"


@families
@pytest.mark.parametrize("kind", ["unreachable", "blackhole", "prohibit"])
def test_a_route_that_leads_nowhere_is_told_by_its_kind(
    node: Namespace, way: RouteTo, kind: str, family: int
) -> None:
    node.ip(f"route add {kind} {BEYOND[family]}\n")
    assert Route(kind) == way(BEYOND[family])


@families
def test_without_a_route_there_is_none(way: RouteTo, family: int) -> None:
    assert way(ELSEWHERE[family]) is None


@families
def test_a_guest_on_a_bridge_without_ports_is_reached_directly(way: RouteTo, family: int) -> None:
    """As on a libvirt network before its first guest: the bridge has no carrier yet."""
    assert Route("unicast", "virbr0", None) == way(ON_EMPTY_BRIDGE[family])


@families
def test_through_a_device_that_is_down_there_is_no_way(
    node: Namespace, way: RouteTo, family: int
) -> None:
    node.ip("link set virbr0 down\n")
    assert way(ON_EMPTY_BRIDGE[family]) is None

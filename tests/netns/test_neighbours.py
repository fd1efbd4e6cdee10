"""The addresses of guests on plain bridges, by a real kernel's neighbour table."""

import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from cgw_hooks.core.guest import Interface
from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.core.published_port import Address
from cgw_hooks.host import neighbours
from cgw_hooks.sources.found_addresses import Look
from tests.lab.namespace import Namespace, namespace

pytestmark = pytest.mark.netns

MAC, OTHER_MAC = "52:54:00:05:05:0b", "52:54:00:05:05:0c"
MANY = 2000


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with two bridges for guests."""
    with namespace("neighbours") as inside:
        for bridge, octet in (("br0", 5), ("br1", 6)):
            inside.ip(
                f"link add {bridge} type bridge\nlink set {bridge} up\n"
                f"address add 10.5.{octet}.1/24 dev {bridge}\n"
            )
        yield inside


def know(host: Namespace, *entries: str, bridge: str = "br0") -> None:
    """Enter neighbours: "ADDRESS MAC STATE"."""
    for address, mac, state in map(str.split, entries):
        host.ip(f"neigh replace {address} dev {bridge} lladdr {mac} nud {state}")


def found(host: Namespace) -> list[str]:
    """The addresses of the guest, the last confirmed one first."""
    listed = sorted(host.call(neighbours.neighbours), key=lambda neighbour: neighbour.age)
    return [str(n.address) for n in listed if (n.device, n.mac) == ("br0", MAC)]


@pytest.mark.parametrize("state", ["reachable", "stale", "delay", "permanent"])
@pytest.mark.parametrize("address", ["10.5.5.11", "fd00:5::11"])
def test_an_address_of_the_guests_interface(host: Namespace, address: str, state: str) -> None:
    know(host, f"{address} {MAC} {state}", f"10.5.5.12 {OTHER_MAC} {state}")
    assert found(host) == [address]


def test_nobody_is_known(host: Namespace) -> None:
    assert found(host) == []


def test_the_same_mac_behind_another_bridge_is_not_the_guest(host: Namespace) -> None:
    know(host, f"10.5.6.11 {MAC} reachable", bridge="br1")
    assert found(host) == []


def test_only_interfaces_on_plain_bridges_have_their_addresses_from_neighbours(
    host: Namespace,
) -> None:
    know(host, f"10.5.5.11 {MAC} reachable")

    def look(*interfaces: Interface) -> tuple[Address, ...]:
        return host.call(lambda: Look(NodeConfig()).found_addresses(interfaces))

    assert look(Interface(MAC, None, "br0")) == (ip_address("10.5.5.11"),)
    assert look(Interface(MAC, "default", "br0")) == ()
    assert look(Interface(MAC, None, "br0"), Interface(OTHER_MAC, "default", "virbr0")) == ()
    assert look(Interface(MAC, None, None)) == ()


@pytest.mark.parametrize("address", ["169.254.7.7", "fe80::7", "224.0.0.7", "ff02::7"])
def test_link_local_and_multicast_addresses_are_left_out(host: Namespace, address: str) -> None:
    know(host, f"{address} {MAC} reachable")
    assert found(host) == []


@pytest.mark.parametrize("state", ["failed", "incomplete", "noarp", "none"])
def test_an_entry_that_is_not_in_use_is_left_out(host: Namespace, state: str) -> None:
    know(host, f"10.5.5.11 {MAC} {state}")
    assert found(host) == []


def test_a_proxy_entry_is_left_out(host: Namespace) -> None:
    host.ip("neigh add proxy 10.5.5.11 dev br0")
    assert found(host) == []


def test_the_last_confirmed_address_comes_first(host: Namespace) -> None:
    know(host, f"10.5.5.12 {MAC} reachable")
    time.sleep(0.1)
    know(host, f"10.5.5.11 {MAC} reachable")
    time.sleep(0.1)
    know(host, f"fd00:5::11 {MAC} reachable")
    assert found(host) == ["fd00:5::11", "10.5.5.11", "10.5.5.12"]
    time.sleep(0.1)
    know(host, f"10.5.5.12 {OTHER_MAC} reachable", f"10.5.5.12 {MAC} reachable")
    assert found(host) == ["10.5.5.12", "fd00:5::11", "10.5.5.11"]


def test_very_many_neighbours(host: Namespace) -> None:
    entry = "neigh replace fd00:5::{0:x} dev br0 lladdr 52:54:00:06:{1:02x}:{2:02x} nud permanent\n"
    listed = "".join(entry.format(16 + n, *divmod(n, 256)) for n in range(MANY))
    host.ip(listed)
    know(host, f"10.5.5.11 {MAC} reachable")
    begun = time.thread_time()
    assert found(host) == ["10.5.5.11"]
    assert time.thread_time() - begun < 1

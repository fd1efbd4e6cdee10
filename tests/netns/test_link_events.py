"""What the resident process hears of links, addresses and neighbours, from a real kernel."""

import select
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from cgw_hooks.host import neighbours
from cgw_hooks.host.link_events import Changes, LinkEvents
from tests.lab.namespace import Namespace, namespace, veth

pytestmark = pytest.mark.netns

NOTHING = Changes()
LINKS, ADDRESSES, NEIGHBOURS = (
    Changes(links=True), Changes(addresses=True), Changes(neighbours=True)
)  # fmt: skip
LONGEST_WAIT = 60.0
MAC, OTHER_MAC = "52:54:00:05:05:0b", "52:54:00:05:05:0c"


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with a bridge for guests."""
    with namespace("links") as inside:
        inside.sysctl(
            {"net/ipv6/conf/all/accept_dad": "0", "net/ipv6/conf/default/accept_dad": "0"}
        )
        inside.ip(
            "link add br0 type bridge\nlink set br0 up\naddress add 10.5.5.1/24 dev br0\n"
            "link add tap0 type veth peer name guest0\nlink set tap0 up\nlink set guest0 up\n"
        )
        yield inside


@pytest.fixture
def events(host: Namespace) -> Iterator[LinkEvents]:
    """Everything that changes from now on."""
    made = host.call(LinkEvents)
    yield made
    made.close()


def settled(events: LinkEvents) -> Changes:
    """What has changed, once the kernel is quiet: it does some of its work later."""
    found = NOTHING
    while select.select([events], [], [], 0.3)[0]:
        found = Changes(*(one or other for one, other in zip(found, events.read(), strict=True)))
    return found


def test_nothing_happens_on_an_idle_host(events: LinkEvents) -> None:
    settled(events)
    assert settled(events) == NOTHING
    assert not events.read()


def test_a_bridge_that_is_made_and_deleted(host: Namespace, events: LinkEvents) -> None:
    settled(events)
    host.ip("link add br1 type bridge")
    assert settled(events).links
    host.ip("link delete br1")
    assert settled(events).links


@pytest.mark.parametrize(
    "change", ["set tap0 down", "set tap0 master br0", "set tap0 down name tap1"]
)
def test_a_link_that_changes(host: Namespace, events: LinkEvents, change: str) -> None:
    settled(events)
    host.ip(f"link {change}")
    assert settled(events).links


def test_a_setting_of_a_link_that_decides_nothing(host: Namespace, events: LinkEvents) -> None:
    host.ip("link set tap0 mtu 1400")
    settled(events)
    host.ip("link set tap0 mtu 1450\nlink set tap0 txqueuelen 99")
    assert settled(events) == NOTHING


@pytest.mark.parametrize("address", ["192.0.2.7/24", "2001:db8::7/64"])
def test_an_address_that_comes_and_goes(host: Namespace, events: LinkEvents, address: str) -> None:
    settled(events)
    host.ip(f"address add {address} dev br0")
    assert settled(events) == ADDRESSES
    host.ip(f"address delete {address} dev br0")
    assert settled(events) == ADDRESSES


def test_an_address_that_is_renewed_wakes_nobody(host: Namespace, events: LinkEvents) -> None:
    """As each router advertisement and each DHCP renewal does."""
    renew = "address replace 2001:db8::7/64 dev br0 valid_lft {0} preferred_lft {0}\n"
    renew += "address replace 192.0.2.7/24 dev br0 valid_lft {0} preferred_lft {0}\n"
    host.ip(renew.format(1000))
    assert settled(events) == ADDRESSES
    host.ip(renew.format(2000))
    assert settled(events) == NOTHING


def test_an_address_is_news_when_it_can_be_used(host: Namespace, events: LinkEvents) -> None:
    """Duplicate address detection takes a second for each of its messages."""
    conf = "net/ipv6/conf/br0"
    host.sysctl({f"{conf}/accept_dad": "1", f"{conf}/dad_transmits": "5"})
    host.ip("link set tap0 master br0")
    settled(events)
    host.ip("address add 2001:db8::8/64 dev br0")
    assert events.read() == ADDRESSES
    deadline = time.monotonic() + LONGEST_WAIT
    while not events.read().addresses:
        assert time.monotonic() < deadline
        select.select([events], [], [], 1.0)


def neighbour(host: Namespace, address: str, mac: str, state: str = "reachable") -> None:
    host.ip(f"neigh replace {address} dev br0 lladdr {mac} nud {state}")


@pytest.mark.parametrize("address", ["10.5.5.11", "fd00:5::11"])
def test_a_neighbour_is_news_once(host: Namespace, events: LinkEvents, address: str) -> None:
    settled(events)
    neighbour(host, address, MAC)
    assert settled(events) == NEIGHBOURS
    for state in ("stale", "reachable", "permanent", "delay", "reachable"):
        neighbour(host, address, MAC, state)
    assert settled(events) == NOTHING
    neighbour(host, address, OTHER_MAC)
    assert settled(events) == NEIGHBOURS


def test_a_neighbour_that_went_and_comes_again(host: Namespace, events: LinkEvents) -> None:
    neighbour(host, "10.5.5.11", MAC)
    assert settled(events).neighbours
    host.ip("neigh delete 10.5.5.11 dev br0")
    assert settled(events) == NEIGHBOURS
    neighbour(host, "10.5.5.11", MAC)
    assert settled(events) == NEIGHBOURS


def test_an_address_without_answer_is_no_neighbour(host: Namespace, events: LinkEvents) -> None:
    settled(events)
    host.ip("neigh replace 10.5.5.12 dev br0 nud failed\nneigh add proxy 10.5.5.13 dev br0")
    assert settled(events) == NOTHING


def test_a_neighbour_that_does_not_answer_any_more(host: Namespace, events: LinkEvents) -> None:
    neighbour(host, "10.5.5.11", MAC)
    assert settled(events).neighbours
    host.call(lambda: neighbours.ask(ip_address("10.5.5.11"), "br0"))
    assert settled(events) == NOTHING
    neighbour(host, "10.5.5.11", MAC, "stale")
    host.sysctl({"net/ipv4/neigh/br0/delay_first_probe_time": "1"})
    host.call(lambda: neighbours.ask(ip_address("10.5.5.11"), "br0"))
    deadline = time.monotonic() + LONGEST_WAIT
    while not events.read().neighbours:
        assert time.monotonic() < deadline
    assert settled(events) == NOTHING


def test_a_real_guest_that_asks_for_its_gateway(host: Namespace, events: LinkEvents) -> None:
    """The kernel enters it by itself, and goes on to change its state."""
    with namespace("guest") as guest:
        veth(host, "tap1", guest, "eth0")
        host.ip("link set tap1 master br0")
        guest.ip("address add 10.5.5.11/24 dev eth0")
        settled(events)
        guest.call(lambda: send(("10.5.5.1", 9)))
        deadline = time.monotonic() + LONGEST_WAIT
        while not events.read().neighbours:
            assert time.monotonic() < deadline
        assert "lladdr" in host.run(["ip", "neigh", "show", "10.5.5.11"]).stdout


def test_lost_news_is_told(host: Namespace) -> None:
    events = host.call(lambda: LinkEvents(buffer_size=1))
    try:
        host.ip("".join(f"link add more{number} type bridge\n" for number in range(60)))
        assert settled(events).lost
        neighbour(host, "10.5.5.11", MAC)
        assert settled(events) == NEIGHBOURS
    finally:
        events.close()


def send(to: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", to)

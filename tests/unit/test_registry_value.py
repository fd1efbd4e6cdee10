"""Values of the registry: another node has written them, and one of them may be anything."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest

from cgw_hooks.core import registry_value
from cgw_hooks.core.guest import REGISTRY, REMOTE, GuestKey, Interface
from cgw_hooks.core.record import Record, State
from cgw_hooks.core.registry_value import Keys, Presence
from cgw_hooks.core.shared_ports import shared_ports
from cgw_hooks.errors import CgwError, RegistryError
from tests.unit.builders import CLUSTER, OTHER_UUID, UUID, guest, is_one_line, port

pytestmark = pytest.mark.unit

KEYS = Keys("/cgw")
PORT = ["tcp", "0.0.0.0", 2202, 2202, 22, "10.5.5.202", []]
LONGEST = registry_value.LONGEST_VALUE


def value(**members: Any) -> str:
    """A good value, with some members replaced."""
    return json.dumps({"version": 1, "name": "web1", "ports": [PORT], **members})


def with_port(place: int, found: Any) -> str:
    """A good value whose port has another field at this place."""
    return value(ports=[[*PORT[:place], found, *PORT[place + 1 :]]])


def refusal(text: str) -> str:
    """The one line that refuses a value."""
    with pytest.raises(RegistryError) as caught:
        registry_value.guest(UUID, text)
    assert is_one_line(str(caught.value))
    return str(caught.value)


def test_a_value_can_be_read_as_it_was_written() -> None:
    ports = (
        port(2202, 22),
        port((8000, 8009), 80, at="192.0.2.1", sources=("10.0.0.0/8", "192.0.2.0/24")),
        port(5353, 53, protocol="udp", target="fd00::2"),
        port(53, target=None, protocol="udp"),
    )
    found = registry_value.guest(UUID, registry_value.value("wéb 1", ports))
    assert (found.key, found.uuid, found.name) == (GuestKey(REGISTRY, UUID), UUID, "wéb 1")
    assert (found.ports, found.is_remote) == (ports, True)


HOSTILE = {
    "no JSON": "{",
    "empty": "",
    "no object": "[1]",
    "null": "null",
    "deep": "[" * 100_000,
    "a number of very many digits": f'{{"version": {"9" * 5000}}}',
    "no version": '{"name": "web1", "ports": []}',
    "a later version": value(version=3),
    "a version as text": value(version="1"),
    "no name": '{"version": 1, "ports": []}',
    "a name that is a number": value(name=7),
    "a name with a newline": value(name="web1\nguest web2: all is well"),
    "a name with an escape sequence": value(name="\x1b[2J"),
    "a name that is written from the right": value(name="\u202e1bew"),
    "a name that is no text": value(name="\ud800"),
    "a name that is a path": value(name="../../etc"),
    "an empty name": value(name=""),
    "a long name": value(name="x" * 200),
    "no ports": '{"version": 1, "name": "web1"}',
    "ports that are a number": value(ports=7),
    "ports that are a text": value(ports="tcp"),
    "a port that is a number": value(ports=[2202]),
    "a port with a field too few": value(ports=[PORT[:-1]]),
    "a port with a field too many": value(ports=[[*PORT, 1]]),
    "another protocol": with_port(0, "icmp"),
    "a protocol with text for nft": with_port(0, "tcp; flush ruleset"),
    "a protocol that is a list": with_port(0, ["tcp"]),
    "port 0": with_port(2, 0),
    "port 65536": with_port(3, 65536),
    "a negative port": with_port(4, -1),
    "a port that is a fraction": with_port(2, 2202.0),
    "a port that is true": with_port(4, True),
    "a port as text": with_port(4, "22"),
    "a range that ends before it begins": with_port(3, 2201),
    "a range beyond the guest's last port": value(
        ports=[["tcp", "0.0.0.0", 1000, 1100, 65500, "10.5.5.202", []]]
    ),
    "a loopback listening address": with_port(1, "127.0.0.1"),
    "the listening address ::1": value(ports=[["tcp", "::1", 80, 80, 80, "fd00::2", []]]),
    "a multicast listening address": with_port(1, "224.0.0.1"),
    "a listening address with a scope": with_port(1, "fe80::1%eth0"),
    "a listening address that is null": with_port(1, None),
    "a loopback target": with_port(5, "127.0.0.1"),
    "a target that is every address": with_port(5, "0.0.0.0"),
    "a multicast target": with_port(5, "224.0.0.1"),
    "an IPv4 address in an IPv6 one": with_port(5, "::ffff:10.5.5.202"),
    "a name as target": with_port(5, "web1.example"),
    "a target of the other family": with_port(5, "fd00::2"),
    "a source of the other family": with_port(6, ["fd00::/8"]),
    "a source with host bits": with_port(6, ["10.0.0.1/8"]),
    "sources that are a number": with_port(6, 10),
    "sources that are numbers": with_port(6, [10]),
    "the same port twice": value(ports=[PORT, PORT]),
    "ports that overlap": value(
        ports=[PORT, ["tcp", "192.0.2.1", 2200, 2209, 80, "10.5.5.202", []]]
    ),
    "too many ranges": value(
        ports=[["tcp", "0.0.0.0", n, n, n, "10.5.5.202", []] for n in range(1, 3000)]
    ),
    "too many elements": value(ports=[["tcp", "0.0.0.0", 1, 60000, 2, "10.5.5.202", []]]),
    "a huge value": value(more="x" * LONGEST),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_used_is_refused_in_one_line_that_names_the_guest(text: str) -> None:
    line = refusal(text)
    assert UUID in line or "web1" in line
    assert "registry" in line
    assert len(line) < 1000


@pytest.mark.parametrize("change", range(400))
def test_a_value_that_was_damaged_is_refused_or_is_still_a_value(change: int) -> None:
    """Every way to replace or leave out one character raises nothing but the error."""
    good = value()
    place, kind = divmod(change, 4)
    at = place % len(good)
    text = good[:at] + ("", "0", '"', "\0")[kind] + good[at + 1 :]
    try:
        found = registry_value.guest(UUID, text)
    except CgwError as error:
        assert is_one_line(str(error))  # noqa: PT017
    else:
        assert all(1 <= p.start <= p.end <= 65535 for p in found.ports)


def test_sources_that_overlap_become_one_as_an_interval_map_needs() -> None:
    (found,) = registry_value.guest(UUID, with_port(6, ["10.0.0.0/8", "10.1.0.0/16"])).ports
    assert found.sources == (ip_network("10.0.0.0/8"),)


def test_members_that_a_later_version_adds_do_no_harm() -> None:
    assert registry_value.guest(UUID, value(more=[1])).name == "web1"


# -- keys ------------------------------------------------------------------------------------


def test_a_key_tells_guest_and_node() -> None:
    assert KEYS.guest_of(KEYS.guest(UUID, "node1")) == (UUID, "node1")
    assert KEYS.node_of(f"{KEYS.nodes}node1") == "node1"


@pytest.mark.parametrize(
    "key",
    [
        f"/cgw/v1/guests/{UUID}",
        f"/cgw/v1/guests/{UUID}/",
        f"/cgw/v1/guests/{UUID}/node1/more",
        "/cgw/v1/guests/web1/node1",
        f"/cgw/v1/guests/{UUID[:-1]}/node1",
        f"/cgw/v1/guests/../../{UUID}/node1",
        f"/cgw/v2/guests/{UUID}/node1",
        f"/other/v1/guests/{UUID}/node1",
        f"{UUID}/node1",
        "/cgw/v1/serial",
        "",
    ],
)
def test_another_key_is_of_no_guest(key: str) -> None:
    assert KEYS.guest_of(key) is None
    assert KEYS.node_of(key) == ""


# -- presence --------------------------------------------------------------------------------

PRESENT = Presence("node1", (("10.5.5.0/24", "10.5.5.254"),), {UUID: ("*:2202/tcp",)}, 1.5)


def test_a_presence_can_be_read_as_it_was_written() -> None:
    assert registry_value.presence("node1", registry_value.presence_value(PRESENT)) == PRESENT


def told(**members: Any) -> str:
    """A good presence, with some members replaced."""
    return json.dumps({"version": 1, **registry_value.presence_members(PRESENT), **members})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        told(version=2),
        told(networks=7),
        told(networks=[["10.5.5.0/24"]]),
        told(networks=[["10.5.5.1/24", "10.5.5.254"]]),
        told(networks=[["10.5.5.0/24", "gateway"]]),
        told(closed=[UUID]),
        told(closed={"web1": []}),
        told(closed={UUID: 7}),
        told(since="yesterday"),
        told(since=None),
        told(since=float("nan")),
        told(since=float("inf")),
        told(since=-1),
        told(since=10**400),
        told(since=10**15),
        told(more="x" * LONGEST),
    ],
    ids=lambda text: text[:70],
)
def test_of_a_presence_that_cannot_be_used_only_the_node_is_known(text: str) -> None:
    assert registry_value.presence("node1", text) == Presence("node1")


# -- what this node shares -------------------------------------------------------------------

LINK = Interface("52:54:00:00:00:01", None, "guestbr0")


def shared(record: Record) -> tuple[object, ...]:
    return shared_ports([record], CLUSTER)


@pytest.mark.parametrize("state", [State.RESERVED, State.PUBLISHED])
def test_ports_in_a_guest_network_are_shared_before_the_guest_has_started(state: State) -> None:
    inside, outside = port(2202), port(80, target="192.168.122.5")
    assert shared(Record(guest(inside, outside), state, 1.0)) == (inside,)


@pytest.mark.parametrize("state", [State.STOPPED, State.SUPERSEDED])
def test_a_guest_that_has_stopped_shares_nothing(state: State) -> None:
    assert shared(Record(guest(port(2202)), state, 1.0)) == ()


def test_a_port_without_a_target_is_shared_if_the_guest_is_in_a_guest_network() -> None:
    waiting = port(2202, target=None)
    away = LINK._replace(bridge="virbr0")
    assert shared(Record(guest(waiting)._replace(leased=(LINK,)), State.PUBLISHED, 1.0)) == (
        waiting,
    )
    assert shared(Record(guest(waiting)._replace(leased=(away,)), State.PUBLISHED, 1.0)) == ()


@pytest.mark.parametrize("driver", [REMOTE, REGISTRY])
def test_a_guest_of_another_node_is_not_shared(driver: str) -> None:
    remote = guest(port(2202))._replace(key=GuestKey(driver, OTHER_UUID))
    assert shared(Record(remote, State.PUBLISHED, 1.0)) == ()

"""Wide ranges and long lists: they cost about what one port costs, or are refused at once."""

import time
from collections.abc import Iterator

import pytest

from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import CLIENT, NODE
from tests.netns.guest import DONE, Finished, Guest
from tests.netns.halts import RULESET, halted_hook
from tests.netns.node import OUR_TABLE, Node
from tests.netns.own_mounts import OwnMounts, own_mounts
from tests.netns.parameters import families

pytestmark = pytest.mark.netns

INVALID, CONFLICT = 3, 4
#: A limit for one call on a machine that is busy with other things; without it such calls took
#: minutes.
_SECONDS = 30.0
WIDE = "20000-59999:20000"


def index_entries(node: Node) -> list[str]:
    """The claims in the node's index of ports, as paths."""
    folder = node.runtime / "index/ports"
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def elements(node: Node, name: str) -> int:
    """How many elements one of our maps has, as nft lists them."""
    listing = node.nft(f"list map {OUR_TABLE} {name}\n")
    return listing.partition("elements")[2].count(" : ")


def timed(guest: Guest, operation: str) -> tuple[Finished, float]:
    """A call and how many seconds it took."""
    before = time.monotonic()
    finished = guest.hook(operation)
    return finished, time.monotonic() - before


@families
def test_a_range_of_40000_ports_that_keep_their_numbers_is_one_element_and_one_claim(
    client: Asker, node: Node, family: int
) -> None:
    web1 = node.guest("web1", WIDE, serves="20000/tcp 40000/tcp 59999/tcp 60000/tcp", family=family)
    web1.start()
    for port in (20000, 40000, 59999):
        assert client.asks(NODE[family], port) == f"web1 saw {CLIENT[family]}"
    for port in (19999, 60000):
        assert client.asks(NODE[family], port) == REFUSED
    assert len(index_entries(node)) == 1
    assert elements(node, f"ranges{family}") == 1
    assert elements(node, f"published{family}") == 0
    web1.stop()
    assert client.asks(NODE[family], 40000) == REFUSED
    assert index_entries(node) == []
    assert elements(node, f"ranges{family}") == 0


def test_a_wide_range_starts_and_stops_about_as_fast_as_one_port(node: Node) -> None:
    """Both in turn, and the best of three: the machine may be busy with other things."""
    narrow, wide = node.guest("web1", "2202:22"), node.guest("web2", WIDE)
    best: dict[str, float] = {}
    for _ in range(3):
        for guest in (narrow, wide):
            seconds = 0.0
            for operation in ("prepare", "started", "stopped", "release"):
                finished, took = timed(guest, operation)
                assert finished == DONE
                seconds += took
            best[guest.name] = min(seconds, best.get(guest.name, seconds))
    assert best["web2"] < 2 * best["web1"]


def test_udp_flows_of_a_wide_range_follow_its_guest(client: Asker, node: Node) -> None:
    web1 = node.guest("web1", f"{WIDE}/udp", serves="40000/udp")
    with client.udp_sender(NODE[4], 40000) as sender:
        assert not sender.exchange(timeout=0.3).answered
        web1.start()
        sender.send()  # takes the refusal of an earlier packet off the socket
        assert sender.exchange().guest == "web1"
        web1.stop()
        assert not sender.exchange(timeout=0.3).answered


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (WIDE, "40000:22", "*:40000/tcp"),
        ("40000:22", WIDE, "*:40000/tcp"),
        (WIDE, "59999-65535:1", "*:59999/tcp"),
        (WIDE, "192.168.122.11:20000:22", "192.168.122.11:20000/tcp"),
        ("192.168.122.11:59999:22", WIDE, "*:59999/tcp"),
        (WIDE, "1-65535:1", "*:20000-59999/tcp"),
    ],
)
def test_who_wants_a_port_of_a_wide_range_is_refused(
    client: Asker, node: Node, first: str, second: str, shown: str
) -> None:
    web1 = node.guest("web1", first, serves="22/tcp 40000/tcp")
    web1.start()
    refused = node.guest("web2", second).hook("prepare")
    assert refused.exit_code == CONFLICT
    assert f'guest "web2": port {shown} is published by guest "web1"' in refused.complaint
    if first != "192.168.122.11:59999:22":
        assert client.asks(NODE[4], 40000) == f"web1 saw {CLIENT[4]}"


def test_wide_ranges_side_by_side_are_no_conflict(client: Asker, node: Node) -> None:
    ranges = ["1000-29999:1000", "30000-39999:30000", "40000-65535:40000"]
    for number, published in enumerate(ranges):
        node.guest(f"web{number}", published, serves=f"{published.split(':')[1]}/tcp").start()
    for number, port in enumerate((1000, 30000, 40000)):
        assert client.asks(NODE[4], port) == f"web{number} saw {CLIENT[4]}"
    node.guest("udp", "1-65535:1/udp", serves="53/udp").start()
    assert client.asks(NODE[4], 53, "udp") == f"udp saw {CLIENT[4]}"


@pytest.mark.parametrize(
    "published",
    [
        [WIDE, "30000:22"],
        [WIDE, "10000-20000:10000"],
        ["2200-2300:2200", "192.168.122.11:2250:22"],
        ["192.168.122.11:2250:22", "2200-2300:2200"],
    ],
)
def test_a_conflict_inside_one_annotation_is_refused(node: Node, published: list[str]) -> None:
    refused = node.guest("web1", *published).hook("prepare")
    assert refused.exit_code == INVALID
    assert "overlap" in refused.complaint
    assert (node.files(), index_entries(node)) == ({}, [])


def many_addresses(count: int, ports: str) -> list[str]:
    """The same ports at so many listening addresses, one to each."""
    return [f"198.18.{n // 250}.{n % 250 + 1}:{ports}" for n in range(count)]


@pytest.mark.parametrize(
    ("published", "shown"),
    [
        (many_addresses(3000, "2202:22"), "asks for 3000 ranges of ports"),
        (["1000-19999:2000"], "needs 19000 elements in the ruleset"),
        (many_addresses(30, "1-60000:2"), "needs 1800000 elements in the ruleset"),
    ],
    ids=["3000 addresses", "19000 renumbered", "30 times 60000 renumbered"],
)
def test_what_is_too_much_is_refused_at_once_in_one_line(
    node: Node, published: list[str], shown: str
) -> None:
    refused, took = timed(node.guest("web1", *published), "prepare")
    assert (refused.exit_code, refused.complaint.count("\n")) == (INVALID, 0)
    assert refused.complaint.startswith('cgw: guest "web1": <publish> ')
    assert shown in refused.complaint
    assert took < _SECONDS
    assert (node.files(), node.our_table()) == ({}, "")


@pytest.mark.parametrize(
    "published",
    [many_addresses(1000, "2202:22"), many_addresses(30, "1-65535:1")],
    ids=["1000 addresses", "30 times all ports"],
)
def test_as_much_as_may_be_asked_for_holds_nobody_up(
    client: Asker, node: Node, published: list[str]
) -> None:
    node.add_address("198.18.0.1")
    client.namespace.ip(f"route add 198.18.0.0/16 via {NODE[4]}")
    many = node.guest("web1", *published, serves="22/tcp 2202/tcp")
    for operation in ("prepare", "started", "reconnect"):
        finished, took = timed(many, operation)
        assert finished == DONE
        assert took < _SECONDS
    assert client.asks("198.18.0.1", 2202).startswith("web1")
    assert len(index_entries(node)) == len(published)
    # The next guest asks for the same: each of its claims is looked up among those.
    refused, took = timed(node.guest("web2", *published), "prepare")
    assert (refused.exit_code, took < _SECONDS) == (CONFLICT, True)
    for operation in ("stopped", "release"):
        finished, took = timed(many, operation)
        assert finished == DONE
        assert took < _SECONDS
    assert index_entries(node) == []


# -- a lock that is held ---------------------------------------------------------------------


@pytest.fixture
def mounts(node: Node) -> Iterator[OwnMounts]:
    """Where the test can read syslog."""
    with own_mounts(node) as made:
        yield made


def test_a_lock_held_by_a_stopped_process_delays_a_guest_by_two_seconds_and_is_said(
    client: Asker, node: Node, mounts: OwnMounts
) -> None:
    """As of a hook call on a host that swaps: stopped in the middle of its change."""
    web1, web2 = (node.guest(f"web{n}", f"{2201 + n}:22", serves="22/tcp") for n in (1, 2))
    with halted_hook(web1, RULESET, "started"):
        before = time.monotonic()
        assert mounts.hook(web2, "prepare").exit_code == 0  # the guest starts all the same
        assert 2.0 <= time.monotonic() - before < _SECONDS
        said = mounts.syslog()
        assert "prepare: " in said
        assert "lock: another cgw has held the lock for 2 s; see who: fuser -v" in said
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    web2.start()
    assert client.asks(NODE[4], 2203) == f"web2 saw {CLIENT[4]}"


def test_a_guest_that_stops_while_the_lock_is_held_is_closed(
    client: Asker, node: Node, mounts: OwnMounts
) -> None:
    web1, web2 = (node.guest(f"web{n}", f"{2201 + n}:22", serves="22/tcp") for n in (1, 2))
    echo = node.guest("web3", "2204:53/udp", "2205:22", serves="53/udp 22/tcp")
    for guest in (web2, echo):
        guest.start()
    with client.udp_sender(NODE[4], 2204) as sender:
        assert sender.exchange().guest == "web3"
        with halted_hook(web1, RULESET, "started"):
            assert mounts.hook(echo, "stopped").exit_code == 0
            assert "another cgw has held the lock for 2 s" in mounts.syslog()
            assert client.asks(NODE[4], 2205) == REFUSED
            assert not sender.exchange(timeout=0.5).answered
            assert client.asks(NODE[4], 2203) == f"web2 saw {CLIENT[4]}"
            assert mounts.hook(echo, "release").exit_code == 0
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert client.asks(NODE[4], 2205) == REFUSED
    echo.start()
    assert client.asks(NODE[4], 2205) == f"web3 saw {CLIENT[4]}"

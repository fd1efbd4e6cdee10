"""From events of nft's trace to the way of a packet, its story and a cure."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise
from struct import pack
from typing import TYPE_CHECKING

import pytest

from cgw_hooks.core.rules.trace_table import Arming, Watched, bridge_table, inet_table
from cgw_hooks.core.trace import story
from cgw_hooks.core.trace.cures import cure_of_owner, other_cure
from cgw_hooks.core.trace.events import POLICY, RULE, Packet, TraceEvent, parse_packet
from cgw_hooks.core.trace.follower import Follower, Seen
from cgw_hooks.core.trace.passage import (
    BRIDGED,
    DROPPED,
    HERE,
    LEFT,
    LOST,
    UNROUTED,
    Visit,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.unit

OWN = "cgw_trace_1"
GUEST = ip_address("10.5.5.11")
CLIENT, NODE = ip_address("192.0.2.7"), ip_address("192.168.1.5")
ASKED = Packet("tcp", CLIENT, NODE, 40000, 8080, "SYN")
TRANSLATED = Packet("tcp", CLIENT, GUEST, 40000, 80, "SYN")
SAID = Packet("tcp", GUEST, CLIENT, 80, 40000, "SYN ACK")
SAID_BACK = Packet("tcp", NODE, CLIENT, 8080, 40000, "SYN ACK")


def ipv4(protocol: int) -> bytes:
    """A header of 20 bytes."""
    return pack("!BBHHHBBH4s4s", 0x45, 0, 60, 1, 0, 64, protocol, 0, CLIENT.packed, NODE.packed)


def ipv6(following: int) -> bytes:
    """A header of 40 bytes."""
    ends = (ip_address("2001:db8::7").packed, ip_address("2001:db8::5").packed)
    return pack("!IHBB16s16s", 6 << 28, 20, following, 64, *ends)


TCP = pack("!HHIIBBHHH", 40000, 8080, 0, 0, 0x50, 0x12, 64240, 0, 0)


def test_headers_are_read() -> None:
    assert parse_packet(ipv4(6), TCP) == ASKED._replace(flags="SYN ACK")
    found = parse_packet(ipv6(17), TCP[:8])
    assert str(found) == "[2001:db8::7]:40000 -> [2001:db8::5]:8080 (udp)"
    error = parse_packet(ipv4(1), bytes([3, 3, 0, 0]))
    assert error
    assert error.is_refusal
    assert not parse_packet(ipv4(1), bytes([8, 0, 0, 0])).is_refusal  # type: ignore[union-attr]
    assert parse_packet(ipv6(58), b"\x01\x04").is_refusal  # type: ignore[union-attr]
    assert parse_packet(ipv4(6), TCP[:12] + b"\x50\x04").is_refusal  # type: ignore[union-attr]
    assert str(parse_packet(ipv4(47), b"")) == "192.0.2.7 -> 192.168.1.5 (47)"


@pytest.mark.parametrize("size", range(41))
def test_headers_that_are_cut_off_are_no_error(size: int) -> None:
    for network in (ipv4(6), ipv6(6), b"\x00" * 40, b"\xff" * 40):
        parse_packet(network[:size], TCP[:size])


def visit(  # noqa: PLR0913 - what the kernel tells
    number: int, table: str, chain: str, packet: Packet, *events: TraceEvent,
    came_by: str = "", leaves_by: str = "",
) -> list[TraceEvent]:  # fmt: skip
    """What the kernel tells of one base chain; without events, its policy accepts."""
    first = TraceEvent(
        number, table, chain, RULE, "continue",
        packet=packet, came_by=came_by, leaves_by=leaves_by,
    )  # fmt: skip
    return [first, *(events or [TraceEvent(number, table, chain, POLICY, "accept")])]


def own(
    number: int, chain: str, packet: Packet, *, came_by: str = "", leaves_by: str = ""
) -> list[TraceEvent]:
    """The same of a chain of the trace's own."""
    table = f"inet {OWN}"
    return visit(number, table, chain, packet, came_by=came_by, leaves_by=leaves_by)


def to_guest(number: int = 1, forward: Iterable[TraceEvent] = ()) -> list[TraceEvent]:
    """A client's packet that is translated and forwarded."""
    return [
        *own(number, "request", ASKED, came_by="eth0"),
        *own(number, "end_prerouting", TRANSLATED, came_by="eth0"),
        *own(number, "begin_forward", TRANSLATED),
        *forward,
        *own(number, "end_forward", TRANSLATED),
        *own(number, "begin_postrouting", TRANSLATED),
        *own(number, "end_postrouting", TRANSLATED, leaves_by="virbr0"),
    ]


def back(number: int = 2) -> list[TraceEvent]:
    """The guest's answer."""
    return [
        *own(number, "answer", SAID, came_by="virbr0"),
        *own(number, "end_prerouting", SAID),
        *own(number, "begin_forward", SAID),
        *own(number, "end_postrouting", SAID_BACK, leaves_by="eth0"),
    ]


def follow(*events: Iterable[TraceEvent]) -> Seen:
    """What is seen of these events."""
    follower = Follower(OWN, frozenset({GUEST}))
    for group in events:
        for event in group:
            follower.add(event)
    return follower.seen


def test_a_packet_and_its_answer() -> None:
    seen = follow(to_guest(), back())
    assert seen.request
    assert seen.answer
    assert (seen.request.fate, seen.answer.fate) == (LEFT, LEFT)
    assert (seen.request.first, seen.request.last) == (ASKED, TRANSLATED)
    assert (seen.request.came_by, seen.request.left_by) == ("eth0", "virbr0")
    assert seen.answer.last == SAID_BACK


def test_a_packet_that_gets_another_number_on_its_way_is_one_packet() -> None:
    first, rest = to_guest(1)[:4], to_guest(7)[4:]
    seen = follow(first, rest, back())
    assert seen.request
    assert (seen.request.fate, seen.request.last) == (LEFT, TRANSLATED)


def test_a_packet_that_is_sent_again_is_another_one() -> None:
    seen = follow(to_guest(1)[:4], to_guest(2)[:4])
    assert seen.request
    assert seen.request.fate == UNROUTED
    assert len([v for v in seen.request.visits if v.chain == "request"]) == 1


def test_a_number_that_is_used_again_is_another_packet() -> None:
    seen = follow(to_guest(1), to_guest(1), back(1), back(1))
    assert seen.request
    assert seen.answer
    assert len([v for v in seen.request.visits if v.chain == "request"]) == 1
    assert (seen.request.last, seen.answer.last) == (TRANSLATED, SAID_BACK)


def test_packets_of_other_traces_do_not_count() -> None:
    other = [e._replace(table="inet cgw_trace_2") for e in to_guest(5)]
    assert follow(other) == Seen()
    many = [e._replace(packet_id=n) for n in range(5000) for e in other[:2]]
    assert follow(many, to_guest(9999), back(10000)).answer


def test_another_client_s_answer_does_not_count() -> None:
    other = SAID._replace(destination_port=41000)
    frames = visit(3, f"bridge {OWN}", "answer", other, came_by="vnet3")
    assert follow(to_guest(), frames).answer is None
    assert follow(frames, to_guest(), back()).answer
    elsewhere = SAID._replace(source=ip_address("10.5.5.12"))
    assert follow(to_guest(), own(3, "answer", elsewhere)).answer is None


def test_how_a_way_ends() -> None:
    events = to_guest()
    assert fate(events[:4]) == UNROUTED
    assert fate(events[:6]) == LOST
    assert fate([*events[:4], *own(1, "begin_input", ASKED), *own(1, "end_input", ASKED)]) == HERE
    bridged = [
        *visit(1, f"bridge {OWN}", "request", TRANSLATED, came_by="eth1"),
        *visit(1, f"bridge {OWN}", "end_postrouting", TRANSLATED, leaves_by="vnet3"),
    ]
    assert fate(bridged) == BRIDGED
    assert fate(bridged[:2]) == LOST


def fate(events: Iterable[TraceEvent]) -> str:
    """How the request's way ended."""
    request = follow(events).request
    assert request
    return request.fate


def dropped(table: str, *chains: str, verdict: str = "drop") -> list[TraceEvent]:
    """A packet that a rule of the last of these chains drops; the chains before jump to it."""
    jumps = [
        TraceEvent(1, table, chain, RULE, "jump", 3, target=target)
        for chain, target in pairwise(chains)
    ]
    end = TraceEvent(1, table, chains[-1], RULE, verdict, 4)
    return to_guest(1)[:6] + visit(1, table, chains[0], TRANSLATED, *jumps, end)


@pytest.mark.parametrize(
    ("table", "chains", "wanted"),
    [
        ("inet firewalld", ["filter_FORWARD", "filter_FORWARD_dnat"], "run: sed -i "),
        ("inet firewalld", ["filter_FORWARD"], "see: firewall-cmd --list-all-policies"),
        ("ip filter", ["FORWARD", "LIBVIRT_FWI"], "run: cgw sync"),
        ("ip libvirt_network", ["forward", "guest_input"], "run: cgw sync"),
        ("inet cgw", ["postrouting"], "run: cgw sync"),
        ("ip filter", ["FORWARD", "ufw-reject-forward"], ""),
    ],
)
def test_some_programs_have_a_cure_of_their_own(table: str, chains: list[str], wanted: str) -> None:
    found = cure_of_owner(the_end(table, *chains))
    assert found.startswith(wanted)
    assert bool(found) == bool(wanted)


@pytest.mark.parametrize(
    ("table", "chain", "wanted"),
    [
        (
            "bridge x",
            "y",
            "run: nft 'insert rule bridge x y ip daddr 10.5.5.11 tcp dport 80 accept'",
        ),
        ("inet $(reboot)", "x", "see: nft list ruleset"),
        ("inet x", "a b", "see: nft list ruleset"),
    ],
)
def test_a_cure_has_only_names_that_people_can_type(table: str, chain: str, wanted: str) -> None:
    assert other_cure(the_end(table, chain), is_answer=False) == wanted


def the_end(table: str, *chains: str) -> Visit:
    """Where the last of these chains has dropped a packet."""
    request = follow(dropped(table, *chains)).request
    assert request
    assert request.fate == DROPPED
    assert request.end
    return request.end


def test_a_program_that_takes_the_packet_over_ends_its_way() -> None:
    request = follow(dropped("inet theirs", "queued", verdict="queue")).request
    assert request
    assert [str(step) for step in story.steps(request, {})][-1] == (
        "inet theirs queued: TAKEN OVER by rule `handle 4`  <- it ended here"
    )


def test_the_tables_name_nothing_but_numbers_addresses_and_devices() -> None:
    watched = Watched("udp", (NODE,), 53, GUEST, 5353)
    arming = Arming((watched,), (), OWN, 30, ("eth1.100",))
    for text in (inet_table(arming), bridge_table(arming)):
        assert "flags owner;" in text
        assert f"{NODE} . 17 . 53 timeout 30s" in text
    assert f"{GUEST} . 5353 timeout 30s" in bridge_table(arming)
    assert 'iifname { "eth1.100" }' in bridge_table(arming)
    assert "iifname" not in bridge_table(arming._replace(links=()))

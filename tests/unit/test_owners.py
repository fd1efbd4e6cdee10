"""Whose a port is where two records name it, and nothing else can tell."""

from __future__ import annotations

import pytest

from cgw_hooks.core.guest import PEER, Guest
from cgw_hooks.core.ownership import settle
from cgw_hooks.core.published_port import PublishedPort
from cgw_hooks.core.record import Record, State
from tests.unit.builders import port

pytestmark = pytest.mark.unit


def record(
    name: str,
    *ports: PublishedPort,
    since: float = 1.0,
    state: State = State.PUBLISHED,
    driver: str = "qemu",
) -> Record:
    return Record(Guest(driver, name, name, ports), state, since)


def owners(*records: Record) -> dict[str, str]:
    """What is whose, as `*:80/tcp` -> key; and who goes without, as key -> "refused"."""
    found, refused = settle(records)
    return {str(claim): key for claim, key in found.items()} | {
        record.guest.key: "refused" for record in refused
    }


def test_every_port_of_a_range_has_its_owner() -> None:
    first, second = record("a", port((80, 81))), record("b", port(82), port(80, protocol="udp"))
    assert owners(first, second) == {
        "*:80/tcp": "qemu-a",
        "*:81/tcp": "qemu-a",
        "*:82/tcp": "qemu-b",
        "*:80/udp": "qemu-b",
    }


@pytest.mark.parametrize("other", [port(80), port(80, at="192.0.2.1"), port((79, 80))])
def test_of_two_that_are_published_the_older_has_the_port(other: PublishedPort) -> None:
    old, new = record("b", port(80), since=1.0), record("a", other, port(90), since=2.0)
    assert owners(old, new) == owners(new, old) == {"*:80/tcp": "qemu-b", "qemu-a": "refused"}


@pytest.mark.parametrize("state", [State.CLAIMED, State.STOPPING, State.STOPPED])
def test_a_published_one_has_it_before_an_older_one_that_is_not(state: State) -> None:
    old, new = record("a", port(80), state=state), record("b", port(80), since=2.0)
    assert owners(old, new) == {"*:80/tcp": "qemu-b", "qemu-a": "refused"}


def test_who_goes_without_stands_in_nobody_elses_way() -> None:
    first, second = record("a", port(80), since=1.0), record("b", port((80, 81)), since=2.0)
    third = record("c", port(81), since=3.0)
    assert owners(first, second, third) == {
        "*:80/tcp": "qemu-a",
        "*:81/tcp": "qemu-c",
        "qemu-b": "refused",
    }


def test_addresses_and_families_part_the_ports() -> None:
    here, there = record("a", port(80, at="192.0.2.1")), record("b", port(80, at="192.0.2.2"))
    six = record("c", port(80, target="fd00::5"))
    assert owners(here, there, six) == {
        "192.0.2.1:80/tcp": "qemu-a",
        "192.0.2.2:80/tcp": "qemu-b",
        "[::]:80/tcp": "qemu-c",
    }


def test_a_guest_has_what_the_peer_that_is_the_same_guest_claims_too() -> None:
    peer = record("a", port(80), port(90), driver=PEER)
    assert owners(peer, record("a", port(80), since=2.0)) == {
        "*:80/tcp": "qemu-a",
        "*:90/tcp": "peer-a",
    }


def test_a_peer_goes_without_a_port_of_another_guest_of_this_node() -> None:
    peer = record("a", port(80, target="10.5.5.77"), driver=PEER)
    assert owners(peer, record("b", port(80), since=2.0)) == {
        "*:80/tcp": "qemu-b",
        "peer-a": "refused",
    }


def test_what_a_guest_left_to_its_other_self_is_not_its_own_any_more() -> None:
    before, after = record("a", port(80), state=State.SUCCEEDED), record("b", port(80), since=2.0)
    assert owners(before, after) == {"*:80/tcp": "qemu-b"}

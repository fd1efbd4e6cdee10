"""Whose each port is, where all guests of the node are decided on as one set."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from cgw_hooks.core.guest import REMOTE, Guest, GuestKey
from cgw_hooks.core.ownership import Candidate, Listener, Listeners, overrides, settle
from cgw_hooks.core.published_port import PublishedPort
from cgw_hooks.core.record import Record, State
from tests.unit.builders import OTHER_UUID, UUID, port

pytestmark = pytest.mark.unit


def candidate(
    name: str,
    *ports: PublishedPort,
    since: float | None = 1.0,
    state: State = State.PUBLISHED,
    driver: str = "qemu",
    had: tuple[PublishedPort, ...] | None = None,
) -> Candidate:
    """A guest that wants these ports; `since` None: it is new; `had`: its ports so far."""
    guest = Guest(GuestKey(driver, name), name, ports)
    if since is None:
        return Candidate(guest)
    return Candidate(
        guest, Record(guest._replace(ports=ports if had is None else had), state, since)
    )


def owners(*candidates: Candidate) -> dict[str, str]:
    """What is whose, as `*:80/tcp` -> key; and who goes without, as key -> the holder's name."""
    verdict = settle(candidates)
    found = {str(claim): str(c.guest.key) for c in verdict.accepted for claim in c.guest.claims}
    return found | {str(r.candidate.guest.key): r.holder.name for r in verdict.refused}


def test_a_range_is_owned_as_one() -> None:
    first, second = (
        candidate("a", port((80, 81))),
        candidate("b", port(82), port(80, protocol="udp")),
    )
    assert owners(first, second) == {
        "*:80-81/tcp": "qemu-a",
        "*:82/tcp": "qemu-b",
        "*:80/udp": "qemu-b",
    }


@pytest.mark.parametrize(
    "other", [port(80), port(80, at="192.0.2.1"), port((79, 80)), port((1, 65535))]
)
def test_of_two_that_are_published_the_older_has_the_port(other: PublishedPort) -> None:
    old, new = candidate("b", port(80), since=1.0), candidate("a", other, port(90, protocol="udp"))
    new = new._replace(old=new.old and new.old._replace(since=2.0))
    assert owners(old, new) == owners(new, old) == {"*:80/tcp": "qemu-b", "qemu-a": "b"}


@pytest.mark.parametrize("state", [State.RESERVED, State.STOPPED])
def test_a_published_one_has_it_before_an_older_one_that_is_not(state: State) -> None:
    old, new = candidate("a", port(80), state=state), candidate("b", port(80), since=2.0)
    assert owners(old, new) == {"*:80/tcp": "qemu-b", "qemu-a": "b"}


def test_who_goes_without_stands_in_nobody_elses_way() -> None:
    first, second = candidate("a", port(80), since=1.0), candidate("b", port((80, 81)), since=2.0)
    third = candidate("c", port(81), since=3.0)
    assert owners(first, second, third) == {
        "*:80/tcp": "qemu-a",
        "*:81/tcp": "qemu-c",
        "qemu-b": "a",
    }


def test_addresses_and_families_part_the_ports() -> None:
    here, there = candidate("a", port(80, at="192.0.2.1")), candidate("b", port(80, at="192.0.2.2"))
    six = candidate("c", port(80, target="fd00::5"))
    assert owners(here, there, six) == {
        "192.0.2.1:80/tcp": "qemu-a",
        "192.0.2.2:80/tcp": "qemu-b",
        "[::]:80/tcp": "qemu-c",
    }


def test_a_guest_and_the_remote_guest_that_is_the_same_guest_are_no_rivals() -> None:
    remote = candidate("a", port(80), port(90), driver=REMOTE)
    assert settle([remote, candidate("a", port(80), since=2.0)]).refused == []


def test_a_remote_guest_goes_without_a_port_of_another_guest_of_this_node() -> None:
    remote = candidate("a", port(80, target="10.5.5.77"), driver=REMOTE)
    guests_own = {"*:80/tcp": "qemu-b", "remote-a": "b"}
    assert owners(remote, candidate("b", port(80), since=2.0)) == guests_own
    assert owners(remote._replace(old=None), candidate("b", port(80), since=None)) == guests_own


def test_a_new_guest_of_this_node_does_not_take_what_a_remote_guest_has() -> None:
    remote = candidate("a", port(80, target="10.5.5.77"), driver=REMOTE)
    new = candidate("b", port(80), since=None)
    assert owners(remote, new) == {"*:80/tcp": "remote-a", "qemu-b": "a"}


@pytest.mark.parametrize("name", ["a", "b"])
def test_two_remote_guests_are_never_the_same_guest(name: str) -> None:
    first = candidate("a", port(80), driver=REMOTE)
    second = candidate(name, port(80), driver=REMOTE)._replace(old=None)
    second = second._replace(guest=second.guest._replace(key=GuestKey(REMOTE, "second")))
    assert owners(first, second) == {"*:80/tcp": "remote-a", "remote-second": "a"}


def test_ports_swapped_between_two_are_no_conflict() -> None:
    first = candidate("a", port(81), had=(port(80),), driver=REMOTE)
    second = candidate("b", port(80), had=(port(81),), driver=REMOTE)
    assert owners(first, second) == {"*:81/tcp": "remote-a", "*:80/tcp": "remote-b"}


def test_a_chain_of_handed_over_ports_is_no_conflict() -> None:
    chain = [
        candidate(name, port(start), had=(port(start - 1),), driver=REMOTE)
        for name, start in (("a", 81), ("b", 82), ("c", 83))
    ]
    assert settle(chain).refused == []


@pytest.mark.parametrize(("old_port", "keeps"), [(90, True), (80, False)])
def test_who_is_refused_keeps_what_nobody_else_has(old_port: int, keeps: bool) -> None:
    holder = candidate("a", port(80), since=1.0)
    changed = candidate("b", port(80), since=2.0, had=(port(old_port),))
    assert [refusal.keeps_old for refusal in settle([holder, changed]).refused] == [keeps]


# -- who is the same guest -------------------------------------------------------------------


def remote(name: str, target: str = "10.5.5.202", uuid: str = "") -> Guest:
    return Guest(GuestKey(REMOTE, name), name, (port(80, target=target),), uuid)


HERE = Guest(GuestKey("qemu", UUID), "web1", (port(80),), UUID)


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (remote("web1"), True),
        (remote("web1", target="10.5.5.203"), False),
        (remote("web2"), False),
        (remote("web1", uuid=OTHER_UUID), False),
        (remote("before", target="10.5.5.203", uuid=UUID), True),
    ],
    ids=["name and address", "name alone", "address alone", "other uuid", "uuid"],
)
def test_a_remote_guest_is_this_guest_by_uuid_or_by_name_and_address(
    other: Guest, is_same: bool
) -> None:
    assert HERE.is_same_guest(other) is other.is_same_guest(HERE) is is_same
    assert overrides([HERE, other]) == ({HERE.key: (other.key,)} if is_same else {})


# -- the node's own listeners ----------------------------------------------------------------


def listeners(*found: tuple[str, str, int]) -> Listeners:
    return Listeners(Listener(protocol, ip_address(at), number) for protocol, at, number in found)


@pytest.mark.parametrize(
    ("published", "taken"),
    [
        (port(22), "*:22/tcp"),
        (port((1, 65535)), "*:22/tcp"),
        (port(22, at="192.0.2.9"), "192.0.2.9:22/tcp"),
        (port(53, protocol="udp"), "*:53/udp"),
        (port(53, protocol="udp", at="192.0.2.9"), None),
        (port(22, protocol="udp"), None),
        (port(23), None),
        (port(22, target="fd00::5"), None),
        (port(631), None),
    ],
)
def test_a_listener_of_the_node_has_its_port(published: PublishedPort, taken: str | None) -> None:
    found = listeners(("tcp", "0.0.0.0", 22), ("udp", "192.0.2.1", 53), ("tcp", "127.0.0.1", 631))
    claim = found.taken(published.claim)
    assert taken == (str(claim) if claim else None)

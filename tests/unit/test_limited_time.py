"""Ports that are published for a limited time: ``<portForward until="...">``."""

from __future__ import annotations

import json

import pytest

from cgw_hooks.core.guest import Guest, GuestKey
from cgw_hooks.core.parse import fields
from cgw_hooks.core.parse.domain_xml import parse_domain
from cgw_hooks.core.record import Record, State, from_json, published, to_json, unexpired
from tests.unit.builders import TCP_80, domain, forward, publish, refusal

pytestmark = pytest.mark.unit

TIME = "2026-11-24T22:00:00Z"
END = 1795557600
ADDRESS = "10.5.5.202,fd00::5"
SOON = forward('start="8080" to="80"', f'proto="tcp" until="{TIME}"')
LATER = forward('start="8081"', 'proto="tcp" until="2026-11-24T23:00:00Z"')


def guest_at(now: float, *forwards: str) -> Guest:
    xml = domain(publish("".join(forwards), address=ADDRESS))
    annotation = parse_domain(GuestKey("qemu", "u"), "web1", xml)
    assert annotation
    return annotation.guest(annotation.addresses, now)


def starts(guest: Guest) -> list[int]:
    return [port.start for port in guest.ports]


def record_of(guest: Guest) -> Record:
    return Record(guest, State.PUBLISHED, 1.0)


def test_a_time_is_in_utc() -> None:
    assert fields.parse_time(TIME) == END


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "2026-11-24",
        "2026-11-24T22:00:00",
        "2026-11-24T22:00:00+00:00",
        "2026-11-24t22:00:00z",
        "2026-11-24 22:00:00Z",
        "2026-11-24T22:00:00.5Z",
        "2026-02-30T22:00:00Z",
        "2026-11-24T24:00:00Z",
        "2026-11-24T22:00:60Z",
        "0000-11-24T22:00:00Z",
        "٢026-11-24T22:00:00Z",
        "+026-11-24T22:00:00Z",
        "2026-11-24T22:00:0 Z",
        "1795557600",
        "2h",
    ],
)
def test_any_other_time_is_refused_by_element_value_and_cure(bad: str) -> None:
    line = refusal(domain(publish(forward('start="80"', f'proto="tcp" until="{bad}"'))))
    assert line == (
        f'guest "web1": <portForward until> "{bad}" cannot be used; give a time in UTC: {TIME}'
    )


@pytest.mark.parametrize(
    ("now", "left"),
    [
        (END - 1, [80, 80, 8080, 8080, 8081, 8081]),
        (END, [80, 80, 8081, 8081]),
        (END + 1e9, [80, 80]),
    ],
)
def test_a_port_whose_time_has_passed_is_not_published(now: float, left: list[int]) -> None:
    forwards = (TCP_80, SOON, LATER)
    assert starts(guest_at(now, *forwards)) == left
    early = guest_at(0, *forwards)
    assert starts(early.unexpired(now)) == left
    assert starts(published(early, None, now).guest) == left
    assert starts(unexpired(record_of(early), now).guest) == left


def test_another_port_may_have_the_number_of_an_expired_one() -> None:
    again = forward('start="8080" to="81"')
    assert {port.to for port in guest_at(END, SOON, again).ports} == {81}


def test_the_earliest_end_is_told() -> None:
    guest = guest_at(0, LATER, SOON, TCP_80)
    assert (guest.until, record_of(guest).until) == (END, END)
    assert guest_at(END, LATER, SOON).until == END + 3600
    assert guest_at(0, TCP_80).until is None


def test_what_the_annotation_still_names_is_told() -> None:
    """So its expired elements can be removed from it, also by a later attempt."""
    assert not guest_at(END - 1, SOON, TCP_80).names_expired
    for guest in (guest_at(END, SOON, TCP_80), guest_at(0, SOON, TCP_80).unexpired(END)):
        assert guest.names_expired
        assert guest.until is None
        assert from_json(to_json(record_of(guest))) == record_of(guest)
    again = guest_at(END, SOON, forward('start="8080" to="81"'))
    assert (again.names_expired, again.until) == (False, None)


def test_the_time_is_no_part_of_a_port() -> None:
    """A new end of the time must not end the port's connections."""
    later = SOON.replace("22:00", "22:30")
    assert guest_at(0, SOON).ports == guest_at(0, later).ports
    assert guest_at(0, SOON) != guest_at(0, later)


def test_it_comes_back_from_a_record_and_is_absent_without_it() -> None:
    record = record_of(guest_at(0, SOON, TCP_80))
    assert from_json(to_json(record)) == record
    assert "limits" not in json.loads(to_json(record_of(guest_at(0, TCP_80))))


@pytest.mark.parametrize("bad", [[["tcp"]], [5], "x", [["tcp", "x", 1, 2, 3]], [[1, 2, 3, 4, "x"]]])
def test_a_record_with_another_limit_is_no_record(bad: object) -> None:
    data = json.loads(to_json(record_of(guest_at(0, SOON))))
    with pytest.raises(ValueError, match=r"."):
        from_json(json.dumps({**data, "limits": bad}))


def test_a_withheld_port_that_expires_takes_its_problem_along() -> None:
    guest = guest_at(0, SOON)
    record = record_of(guest)._replace(withheld=guest.ports)
    assert unexpired(record, END).withheld == ()
    assert unexpired(record, END).translated == ()

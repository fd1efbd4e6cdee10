"""A guest's record: what is written is what is read, and nothing else is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cgw_hooks.core.guest import GuestKey, Interface
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.published_port import PublishedPort
from cgw_hooks.core.record import Record, State, from_json, to_json
from tests.unit.builders import guest, port

pytestmark = pytest.mark.unit

FIELDS = ("protocol", "listen_address", "start", "end", "to", "target_address", "sources")
PORTS = [
    port(),
    port((8000, 8009), 80, protocol="udp"),
    port(36, protocol="sctp", at="192.0.2.1"),
    port(80, sources=("10.0.0.0/8", "203.0.113.0/24")),
    port(80, target=None),
    port(80, target="fd00::5"),
    port(80, at="2001:db8::1", target="fd00::5", sources=("2001:db8::/32",)),
    port((1, 65535)),
]


@pytest.mark.parametrize("published", PORTS)
def test_every_kind_of_port_comes_back(published: PublishedPort) -> None:
    record = Record(guest(published), State.PUBLISHED, 1234.5)
    assert record == from_json(to_json(record))


@pytest.mark.parametrize("state", list(State))
def test_every_state_comes_back(state: State) -> None:
    record = Record(
        guest(*PORTS)._replace(leased=(Interface("52:54:00:05:05:0b", "default", "virbr0"),)),
        state,
        0.0,
        Problem("ruleset", "nftables", "the change was refused", "see: cgw status"),
        overrides=(GuestKey("remote", "web-1"),),
        leaving=(port(81),),
        withheld=(port(),),
        digest="5-0123abcd",
    )
    assert record == from_json(to_json(record))


@pytest.mark.parametrize("name", ['we"b', "a\nb", "wéb-网-🦊", "x" * 200, "\udcff", "\x1b[2J"])
def test_every_name_comes_back_from_one_line(name: str) -> None:
    record = Record(guest(name=name)._replace(network_bridges=("virbr0",)), State.RESERVED, 1.0)
    assert to_json(record).isascii()
    assert "\n" not in to_json(record)
    assert record == from_json(to_json(record))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.RESERVED, []),
        (State.PUBLISHED, ["*:80/tcp -> 10.5.5.202:80"]),
        (State.STOPPED, []),
    ],
)
def test_only_a_published_port_of_a_known_address_is_translated(
    state: State, expected: list[str]
) -> None:
    record = Record(guest(port(80), port(81, target=None)), state, 1.0)
    assert expected == [str(translated) for translated in record.translated]


@pytest.mark.parametrize(
    "text", ["", "{", "null", "5", '"a"', "[]", "{}", '{"version": 1}', '{"version": "2"}']
)
def test_a_damaged_or_foreign_file_is_no_record(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_json(text)


def test_a_truncated_file_is_no_record() -> None:
    whole = to_json(Record(guest(*PORTS), State.PUBLISHED, 1.0))
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r".+"):
            from_json(whole[:length])


@pytest.mark.parametrize(
    "key",
    ["version", "driver", "id", "uuid", "name", "state", "since", "problem", "ports", "leaving"],
)
def test_a_record_without_one_of_its_keys_is_none(key: str) -> None:
    data = json.loads(to_json(Record(guest(port()), State.PUBLISHED, 1.0)))
    del data[key]
    with pytest.raises(ValueError, match=key):
        from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("protocol", "icmp"),
        ("protocol", None),
        ("listen_address", "fe80::1%a;flush"),
        ("listen_address", "web"),
        ("start", 0),
        ("end", 65536),
        ("to", "22; flush ruleset"),
        ("to", 22.5),
        ("target_address", "10.5.5"),
        ("sources", ["10.0.0.0/8; flush ruleset"]),
        ("sources", [5]),
        ("sources", 5),
    ],
)
def test_a_port_that_no_annotation_gives_is_not_read(key: str, value: Any) -> None:
    data = json.loads(to_json(Record(guest(port()), State.PUBLISHED, 1.0)))
    data["ports"][0][FIELDS.index(key)] = value
    with pytest.raises(ValueError, match=r".+"):
        from_json(json.dumps(data))


@pytest.mark.parametrize(("key", "value"), [("state", "gone"), ("since", "today"), ("ports", 5)])
def test_a_value_of_another_kind_is_not_read(key: str, value: Any) -> None:
    data = json.loads(to_json(Record(guest(port()), State.PUBLISHED, 1.0)))
    with pytest.raises(ValueError, match=r".+"):
        from_json(json.dumps(data | {key: value}))

"""The ruleset as text. That the kernel does what it says is the netns tier's to show."""

from __future__ import annotations

import re

import pytest

from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.core.published_port import PublishedPort
from cgw_hooks.core.record import Contents
from cgw_hooks.core.rules import table
from cgw_hooks.core.rules.commands import remove
from cgw_hooks.core.rules.elements import map_names
from cgw_hooks.core.rules.names import TABLE
from tests.unit.builders import CLUSTER, annotated, by_map, guest_of, port, random_ports

pytestmark = pytest.mark.unit

_ELEMENTS = re.compile(r"^(add|delete) element inet cgw (\w+) \{ (.*) \}$", re.MULTILINE)
_ALLOWED = re.compile(r'[A-Za-z0-9 \n{}:;.,@=!"/_-]*')


def elements(text: str, command: str) -> dict[str, list[str]]:
    """The elements that a text adds or deletes, by map; without the revision."""
    found: dict[str, list[str]] = {}
    for verb, name, listed in _ELEMENTS.findall(text):
        if verb == command and name != "revision":
            found.setdefault(name, []).extend(listed.split(", "))
    return found


def revision(config: NodeConfig, *ports: PublishedPort) -> str:
    return table.change(config, Contents(), Contents(ports)).splitlines()[0]


@pytest.mark.parametrize(
    ("published", "name", "expected"),
    [
        (port(2202, 22), "published4", ["6 . 2202 : 10.5.5.202 . 22"]),
        (port(123, protocol="udp"), "published4", ["17 . 123 : 10.5.5.202 . 123"]),
        (port(36, protocol="sctp"), "published4", ["132 . 36 : 10.5.5.202 . 36"]),
        (
            port((8000, 8002), 80),
            "published4",
            [f"6 . {8000 + n} : 10.5.5.202 . {80 + n}" for n in range(3)],
        ),
        (port((8000, 8002)), "ranges4", ["6 . 8000-8002 : 10.5.5.202"]),
        (port((1, 65535), at="192.0.2.1"), "ranges4_at", ["192.0.2.1 . 6 . 1-65535 : 10.5.5.202"]),
        (
            port((80, 81), target="fd00::5", sources=("2001:db8::/32",)),
            "ranges6_from",
            ["2001:db8::/32 . ::/0 . 6 . 80-81 : fd00::5"],
        ),
        (port(80, at="192.0.2.1"), "published4_at", ["192.0.2.1 . 6 . 80 : 10.5.5.202 . 80"]),
        (
            port(80, sources=("10.0.0.0/8", "192.0.2.7/32")),
            "published4_from",
            [
                "10.0.0.0/8 . 0.0.0.0/0 . 6 . 80 : 10.5.5.202 . 80",
                "192.0.2.7 . 0.0.0.0/0 . 6 . 80 : 10.5.5.202 . 80",
            ],
        ),
        (
            port(80, at="192.0.2.1", sources=("10.0.0.0/8",)),
            "published4_from",
            ["10.0.0.0/8 . 192.0.2.1 . 6 . 80 : 10.5.5.202 . 80"],
        ),
        (port(80, target="fd00::5"), "published6", ["6 . 80 : fd00::5 . 80"]),
        (
            port(80, at="2001:db8::1", target="fd00::5"),
            "published6_at",
            ["2001:db8::1 . 6 . 80 : fd00::5 . 80"],
        ),
        (
            port(80, target="fd00::5", sources=("2001:db8::/32",)),
            "published6_from",
            ["2001:db8::/32 . ::/0 . 6 . 80 : fd00::5 . 80"],
        ),
    ],
)
def test_a_published_port_is_elements_of_one_map(
    published: PublishedPort, name: str, expected: list[str]
) -> None:
    added = table.change(CLUSTER, Contents(), Contents([published]))
    assert {name: expected} == elements(added, "add")
    keys = [element.partition(" : ")[0] for element in expected]
    deleted = table.change(CLUSTER, Contents([published]), Contents())
    assert {name: keys} == elements(deleted, "delete")
    assert {name: expected} == elements(table.restore(CLUSTER, Contents([published])), "add")


def test_a_change_deletes_before_it_adds_and_touches_nothing_else() -> None:
    text = table.change(CLUSTER, Contents([port(80, 82)]), Contents([port(80, 81)]))
    verbs = [line.split()[:5] for line in text.splitlines()]
    assert [
        ["add", "element", "inet", "cgw", "revision"],
        ["delete", "element", "inet", "cgw", "published4"],
        ["add", "element", "inet", "cgw", "published4"],
    ] == verbs


def test_restore_flushes_every_map_of_published_ports_and_no_table() -> None:
    text = table.restore(CLUSTER, Contents())
    expected = {
        f"{stem}{family}{kind}"
        for stem in ("published", "ranges", "limited")
        for family in "46"
        for kind in ("", "_at", "_from")
    }
    assert expected | {"revision"} == set(
        re.findall(r"^flush map inet cgw (\w+)$", text, re.MULTILINE)
    )
    assert not re.search(r"^(delete|flush table|flush ruleset)", text, re.MULTILINE)


@pytest.mark.parametrize("text", [remove(TABLE), table.replace(CLUSTER, Contents([port(80)]))])
def test_only_our_own_table_is_ever_named(text: str) -> None:
    objects = [line.split()[1:4] for line in text.splitlines()]
    assert [] == [words for words in objects if words[1:3] != ["inet", "cgw"]]


def test_the_revision_is_the_configs_and_not_the_ports() -> None:
    other = parse_config('[uplink]\ndevices = ["eth0"]')
    assert revision(CLUSTER) == revision(CLUSTER, port(80), port(81))
    assert revision(CLUSTER) in table.restore(CLUSTER, Contents([port(80)])).splitlines()
    three = {
        revision(CLUSTER),
        revision(NodeConfig()),
        revision(CLUSTER._replace(uplink=other.uplink)),
    }
    assert 3 == len(three)


@pytest.mark.parametrize("name", ['a"; flush ruleset', "x\nflush ruleset", "\x1b[2J", "ä#'$(id)`"])
def test_a_guests_name_never_reaches_the_text(name: str) -> None:
    ports = guest_of(annotated(), name).ports
    text = table.restore(CLUSTER, Contents(ports)) + table.change(
        CLUSTER, Contents(ports), Contents()
    )
    assert _ALLOWED.fullmatch(text)
    assert guest_of(annotated(), "web1").ports == ports


def key_count(published: PublishedPort) -> int:
    """How many keys a port has in its map: one to a source, and to a port that changes."""
    one_range = published.keeps_numbers and published.end > published.start
    keys = 1 if one_range else published.end - published.start + 1
    return keys * max(1, len(published.sources))


@pytest.mark.parametrize("seed", range(20))
def test_every_element_is_added_once_and_deleted_once(seed: int) -> None:
    ports = random_ports(seed)
    assert len(ports) > 30
    text = table.change(CLUSTER, Contents(), Contents(ports))
    text += table.change(CLUSTER, Contents(ports), Contents())
    added, deleted = elements(text, "add"), elements(text, "delete")
    assert sum(map(key_count, ports)) == sum(map(len, added.values()))
    keys = {name: [e.partition(" : ")[0] for e in listed] for name, listed in added.items()}
    assert keys == deleted
    for listed in keys.values():
        assert len(set(listed)) == len(listed)
    assert added == elements(table.restore(CLUSTER, Contents(ports)), "add")
    assert _ALLOWED.fullmatch(text)


def said(name: str, element: str) -> list[tuple[int, str]]:
    """The listening ports of one element, each with its target."""
    key, target = element.split(" : ")
    listen = key.split(" . ")[-1]
    if name.startswith("published"):
        return [(int(listen), target)]
    first, last = map(int, listen.split("-"))
    return [(number, f"{target} . {number}") for number in range(first, last + 1)]


@pytest.mark.parametrize("seed", range(5))
def test_every_element_says_the_target_of_its_listening_port(seed: int) -> None:
    ports = random_ports(seed)
    added = elements(table.change(CLUSTER, Contents(), Contents(ports)), "add")
    shown = {
        pair for name, listed in added.items() for element in listed for pair in said(name, element)
    }
    expected = {
        (listen, f"{p.target_address} . {p.to + listen - p.start}")
        for p in ports
        for listen in range(p.start, p.end + 1)
    }
    assert expected == shown


def test_random_ports_fill_every_map() -> None:
    ports = [one for seed in range(5) for one in random_ports(seed)]
    assert set(map_names()) == set(by_map(ports))

"""What nft lists is read back as what was put in; tests/netns/test_listing asks the real nft."""

from __future__ import annotations

import pytest

from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.core.parse.nft_listing import Listing, parse_listing
from cgw_hooks.core.published_port import PublishedPort
from cgw_hooks.core.record import Contents
from cgw_hooks.core.rules import table
from cgw_hooks.core.rules.elements import map_names
from cgw_hooks.core.rules.names import TABLE
from cgw_hooks.node import ruleset
from tests.unit.builders import CLUSTER, by_map, port, random_ports

pytestmark = pytest.mark.unit

#: By nft 1.0.6, shortened: four blanks for a tab, ~ for the five blanks that nft puts in front.
LISTED = """\
table inet cgw {
    map revision {
        type mark : mark
        elements = { 0x00000000 : 0x86f07e60 }
    }

    set hairpin {
        typeof iif . oif
        size 4096
        flags dynamic
        elements = { "virbr0" . "virbr0" }
    }

    map published4 {
        type inet_proto . inet_service : ipv4_addr . inet_service
        elements = { 132 . 36 : 10.5.5.202 . 36,
            ~6 . 2202 : 10.5.5.202 . 22 }
    }

    map ranges4 {
        type inet_proto . inet_service : ipv4_addr
        flags interval
        elements = { 17 . 1-79 : 10.5.5.202 }
    }

    map published4_at {
        type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    }

    map published6_from {
        type ipv6_addr . ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
        flags interval
        elements = { 2001:db8::/32 . ::/0 . 6 . 80 : fd00::5 . 80,
            ~2001:db9::1 . ::/0 . 6 . 80 : fd00::5 . 80 }
    }

    chain publish {
        meta l4proto { 6, 17, 132 } dnat ip to meta l4proto . th dport map @published4
        meta l4proto { 6, 17, 132 } dnat ip to meta l4proto . th dport map @ranges4
    }

    chain nothing {
    }

    chain prerouting {
        type nat hook prerouting priority dstnat - 5; policy accept;
        fib daddr type local jump publish
    }
}
""".replace(" " * 4, "\t").replace("~", " " * 5)


def test_a_listing_is_read() -> None:
    expected = Listing(
        maps={
            "revision": {"0x00000000": "0x86f07e60"},
            "hairpin": {'"virbr0" . "virbr0"': ""},
            "published4": {"132 . 36": "10.5.5.202 . 36", "6 . 2202": "10.5.5.202 . 22"},
            "ranges4": {"17 . 1-79": "10.5.5.202"},
            "published4_at": {},
            "published6_from": {
                "2001:db8::/32 . ::/0 . 6 . 80": "fd00::5 . 80",
                "2001:db9::1 . ::/0 . 6 . 80": "fd00::5 . 80",
            },
        },
        chains={"publish": 2, "nothing": 0, "prerouting": 1},
    )
    assert expected == parse_listing(LISTED)


@pytest.mark.parametrize("text", ["", "table inet cgw {\n}\n"])
def test_an_empty_table_has_nothing(text: str) -> None:
    assert Listing({}, {}) == parse_listing(text)


def as_nft_lists(config: NodeConfig, ports: list[PublishedPort]) -> str:
    """The table that `table.restore` makes."""
    maps = {"revision": {"0x00000000": table.revision(config)}}
    elements = by_map(ports)
    maps |= {name: elements.get(name, {}) for name in map_names()}
    lines = []
    for name, found in maps.items():
        lines += [f"\tmap {name} {{", "\t\tflags interval"]
        if found:
            listed = ",\n\t\t\t     ".join(f"{key} : {data}" for key, data in found.items())
            lines.append(f"\t\telements = {{ {listed} }}")
        lines += ["\t}", ""]
    for name, count in table.tables(config)[TABLE].items():
        lines += [f"\tchain {name} {{", *["\t\taccept"] * count, "\t}", ""]
    return "\n".join([f"table {TABLE} {{", *lines, "}", ""])


@pytest.mark.parametrize("seed", range(5))
def test_what_was_put_in_is_read_back(seed: int) -> None:
    ports = random_ports(seed)
    found = parse_listing(as_nft_lists(CLUSTER, ports)).maps
    assert by_map(ports) == {name: found[name] for name in map_names() if found[name]}


def difference(ports: list[PublishedPort], listed: list[PublishedPort]) -> ruleset.Difference:
    """How a table of some ports differs from one that has others, the rules of no network."""
    found = {TABLE: parse_listing(as_nft_lists(NodeConfig(), listed))}
    return ruleset.compare(NodeConfig(), Contents(ports), found)


def test_the_table_of_the_records_makes_no_difference() -> None:
    ports = random_ports(0)
    assert not difference(ports, ports)


@pytest.mark.parametrize(
    "one", [port(22), port((80, 99)), port((80, 99), 1080), port(22, sources=("10.0.0.0/8",))]
)
def test_each_kind_of_port_that_is_not_there_or_left_over_is_a_difference(
    one: PublishedPort,
) -> None:
    keys = {(TABLE, name): set(found) for name, found in by_map([one]).items()}
    other = port(443)
    assert difference([one, other], [other]) == ruleset.Difference("", keys, {})
    assert difference([other], [one, other]) == ruleset.Difference("", {}, keys)


def test_an_element_with_another_target_is_missing() -> None:
    assert difference([port(80)], [port(80, target="10.5.5.203")]).missing == {
        (TABLE, "published4"): {"6 . 80"}
    }


def test_the_rules_of_another_config_are_a_difference() -> None:
    found = {TABLE: parse_listing(as_nft_lists(NodeConfig(), []))}
    assert ruleset.compare(CLUSTER, Contents(), found).rules == (
        "table inet cgw is not the one of this config"
    )


def test_a_chain_that_lost_a_rule_is_a_difference() -> None:
    text = as_nft_lists(NodeConfig(), []).replace("\t\taccept\n", "", 1)
    rules = ruleset.compare(NodeConfig(), Contents(), {TABLE: parse_listing(text)}).rules
    assert rules.startswith("table inet cgw: chain publish does not have its ")

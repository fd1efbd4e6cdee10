"""What nft lists of our table is what was put in, so that status tells a difference only of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.core.parse.nft_listing import parse_listing
from cgw_hooks.core.record import Contents
from cgw_hooks.core.rules import table
from cgw_hooks.core.rules.commands import remove
from cgw_hooks.core.rules.elements import map_names
from cgw_hooks.core.rules.names import TABLE
from cgw_hooks.errors import RulesetError
from cgw_hooks.host.nft import Nft
from cgw_hooks.node import ruleset
from tests.lab.namespace import Namespace, namespace
from tests.unit.builders import CLUSTER, by_map, port, random_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.published_port import PublishedPort

pytestmark = pytest.mark.netns

HERE, HERE6 = "192.0.2.1", "2001:db8:0:0:1::1"
TARGET6 = "fd00:0:0:5::5"
SOURCES = (
    *("128.0.0.0/2", "192.0.2.7/32", "192.0.2.8/31", "198.51.100.0/24"),
    *("10.0.0.0/8", "203.0.113.255/32"),
)
SOURCES6 = ("4000::/3", "2001:db8::1/128", "fd00::/8", "64:ff9b::/96", "fc00:1:2:3:4:5:6:0/113")

#: Each kind of port, to the same number and to another, single and as a range.
PORTS = [
    port(22),
    port(2202, 22),
    port(53, protocol="udp"),
    port(36, 37, protocol="sctp"),
    port((1000, 1999)),
    port((2000, 2009), 80),
    port((8192, 16383), protocol="udp"),
    port((1, 65535), protocol="sctp", at=HERE),
    port(80, at=HERE),
    port((81, 99), at=HERE),
    port((100, 109), 1100, at=HERE, protocol="udp"),
    port(3000, sources=SOURCES),
    port((3001, 3010), sources=SOURCES),
    port((3011, 3013), 80, sources=SOURCES),
    port(3014, sources=("0.0.0.0/0",)),
    port((3015, 3020), sources=("0.0.0.0/0",), at=HERE),
    port(22, target=TARGET6),
    port(2202, 22, target=TARGET6),
    port((1000, 65535), target=TARGET6, protocol="udp"),
    port(80, at=HERE6, target=TARGET6),
    port(80, at="1:2:3:4:5:6:0:8", target=TARGET6),
    port((81, 99), at=HERE6, target=TARGET6),
    port(3000, target=TARGET6, sources=SOURCES6),
    port((3001, 3010), target=TARGET6, sources=SOURCES6),
    port(3014, target=TARGET6, sources=("::/0",)),
    port((3015, 3020), target=TARGET6, sources=("::/0",), at=HERE6),
]


@pytest.fixture(scope="module")
def inside() -> Iterator[Namespace]:
    """A network namespace whose ruleset is the test's own."""
    with namespace("listing") as made:
        yield made


def listed(inside: Namespace, text: str) -> str:
    """How nft lists our table after this text."""

    def apply() -> str:
        nft = Nft()
        nft.apply(text)
        return nft.list_table(TABLE)

    return inside.call(apply)


@pytest.mark.parametrize("ports", [PORTS, *map(random_ports, range(3))])
def test_the_elements_listed_are_those_put_in(
    inside: Namespace, ports: list[PublishedPort]
) -> None:
    found = parse_listing(listed(inside, table.restore(CLUSTER, Contents(ports))))
    put_in = by_map(ports)
    assert {name: put_in.get(name, {}) for name in map_names()} == {
        name: found.maps[name] for name in map_names()
    }


@pytest.mark.parametrize("config", [NodeConfig(), CLUSTER], ids=["no config", "guest network"])
def test_what_was_just_put_in_makes_no_difference(inside: Namespace, config: NodeConfig) -> None:
    listed(inside, table.restore(config, Contents(PORTS)))
    difference = inside.call(
        lambda: ruleset.compare(config, Contents(PORTS), ruleset.read_tables(Nft(), config))
    )
    assert ruleset.Difference("", {}, {}) == difference


def test_every_kind_of_port_that_is_withdrawn_is_missing(inside: Namespace) -> None:
    for one in PORTS:
        text = table.restore(CLUSTER, Contents(PORTS)) + table.change(
            CLUSTER, Contents([one]), Contents()
        )
        found = {TABLE: parse_listing(listed(inside, text))}
        keys = {(TABLE, name): set(found) for name, found in by_map([one]).items()}
        difference = ruleset.compare(CLUSTER, Contents(PORTS), found)
        assert (keys, {}) == (difference.missing, difference.extra)


def test_every_chain_that_is_flushed_makes_a_difference(inside: Namespace) -> None:
    networks = (CLUSTER.guest_networks[0]._replace(internode_devices=("eth1.100",)),)
    config = CLUSTER._replace(guest_networks=networks, replicates=True)  # no chain is empty
    whole = parse_listing(listed(inside, table.restore(config, Contents(PORTS))))
    assert set(whole.chains) == set(table.tables(config)[TABLE])
    for chain in whole.chains:
        text = table.restore(config, Contents(PORTS)) + f"flush chain {TABLE} {chain}\n"
        found = {TABLE: parse_listing(listed(inside, text))}
        assert whole.chains | {chain: 0} == found[TABLE].chains
        rules = ruleset.compare(config, Contents(PORTS), found).rules
        assert rules.startswith(f"table {TABLE}: chain {chain} does not have its ")


def test_a_table_that_is_not_there_is_an_error_and_a_difference(inside: Namespace) -> None:
    def without() -> ruleset.Difference:
        nft = Nft()
        nft.apply(remove(TABLE))
        with pytest.raises(RulesetError):
            nft.list_table(TABLE)
        return ruleset.compare(CLUSTER, Contents(PORTS), ruleset.read_tables(nft, CLUSTER))

    difference = inside.call(without)
    assert "table inet cgw is not there" == difference.rules
    assert set(by_map(PORTS)) == {name for _, name in difference.missing}

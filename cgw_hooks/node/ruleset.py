"""Compares the tables of cgw in the kernel with what they should be. Changes nothing."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse.nft_listing import Listing, parse_listing
from cgw_hooks.core.rules import arp_filter, table
from cgw_hooks.errors import RulesetError
from cgw_hooks.host.nft_tables import table_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.host.nft import Nft


class Difference(NamedTuple):
    """The differences between the kernel's tables and what they should be."""

    #: What is wrong with the rules that published ports need, in words; empty if nothing is.
    rules: str
    #: Map -> keys.
    missing: dict[str, set[str]]
    extra: dict[str, set[str]]
    #: What is wrong with the ARP filter, in words. Published ports work without this filter.
    arp_filter: str = ""

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.rules or self.missing or self.extra or self.arp_filter)

    def without(self, elements: dict[str, dict[str, str]]) -> Difference:
        """Return the differences besides those of some elements, map -> key -> data."""

        def other(found: dict[str, set[str]]) -> dict[str, set[str]]:
            left = {name: keys - elements.get(name, {}).keys() for name, keys in found.items()}
            return {name: keys for name, keys in left.items() if keys}

        return self._replace(missing=other(self.missing), extra=other(self.extra))

    def confirmed_by(self, again: Difference) -> Difference:
        """Return the differences without extra elements that a second look did not find."""
        both = {name: keys & again.extra.get(name, set()) for name, keys in self.extra.items()}
        return self._replace(extra={name: keys for name, keys in both.items() if keys})

    def in_words(self) -> list[str]:
        """Return the differences in words."""
        words = [wrong for wrong in (self.rules, self.arp_filter) if wrong]
        for what, found in (("missing", self.missing), ("left over", self.extra)):
            count = sum(map(len, found.values()))
            if count:
                words.append(f"table {table.TABLE}: {count} elements were {what}")
        return words


def read_tables(nft: Nft, config: NodeConfig) -> dict[str, Listing]:
    """Return those tables of cgw that the kernel has. Raises ``RulesetError``."""
    try:
        there = table_names()
    except OSError as error:
        raise RulesetError("nftables", f"the kernel does not list its tables: {error}") from error
    return {
        name: parse_listing(nft.list_table(name)) for name in table.tables(config) if name in there
    }


def compare(
    config: NodeConfig, should_be: Collection[PublishedPort], found: dict[str, Listing]
) -> Difference:
    """Compare the kernel's tables with the static rules and the elements of these ports."""
    wanted = table.elements(should_be)
    if table.TABLE not in found:
        if not should_be and not config.guest_networks:
            return Difference("", {}, {})  # nothing was ever published
        missing = {name: set(elements) for name, elements in wanted.items()}
        return Difference(f"table {table.TABLE} is not there", missing, {})
    listing = found[table.TABLE]
    missing, extra = {}, {}
    for name in table.map_names():
        here, there = wanted.get(name, {}), listing.maps.get(name, {})
        missing[name] = {key for key, _ in here.items() - there.items()}
        extra[name] = there.keys() - here.keys()
    return Difference(
        _wrong_revision(config, listing) or _wrong_chains(table.TABLE, config, found),
        {name: keys for name, keys in missing.items() if keys},
        {name: keys for name, keys in extra.items() if keys},
        _wrong_chains(arp_filter.TABLE, config, found),
    )


def _wrong_revision(config: NodeConfig, listing: Listing) -> str:
    if table.revision(config) in listing.maps.get("revision", {}).values():
        return ""
    return f"table {table.TABLE} is not the one of this config"


def _wrong_chains(name: str, config: NodeConfig, found: dict[str, Listing]) -> str:
    """Return what is wrong with the chains of a table; empty if the config needs no such table."""
    for chain, count in table.tables(config).get(name, {}).items():
        if name not in found:
            return f"table {name} is not there"
        if found[name].is_dormant:
            return f"table {name} is dormant"
        if found[name].chains.get(chain) != count:
            return f"table {name}: chain {chain} does not have its {count} rules"
    return ""

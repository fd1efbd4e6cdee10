"""Compares the tables of cgw in the kernel with what they should be. Changes nothing."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse.nft_listing import Listing, parse_listing
from cgw_hooks.core.rules import limits, table
from cgw_hooks.core.rules.elements import elements, filled
from cgw_hooks.core.rules.names import BRIDGE_TABLE, TABLE
from cgw_hooks.errors import RulesetError
from cgw_hooks.host.nft_tables import table_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.record import Contents
    from cgw_hooks.core.rules.elements import Elements
    from cgw_hooks.host.nft import Nft

    #: Table and name of a map or set -> keys.
    Keys = dict[tuple[str, str], set[str]]


class Difference(NamedTuple):
    """The differences between the kernel's tables and what they should be."""

    #: What is wrong with the rules that published ports need, in words; empty if nothing is.
    rules: str
    #: Table and name of a map or set -> keys.
    missing: Keys
    extra: Keys
    #: What is wrong with the ARP filter, in words. Published ports work without this filter.
    arp_filter: str = ""

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.rules or self.missing or self.extra or self.arp_filter)

    def without(self, elements: Elements) -> Difference:
        """Return the differences besides those of some elements."""

        def other(found: Keys) -> Keys:
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
                words.append(f"table {TABLE}: {count} elements were {what}")
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


def compare(config: NodeConfig, should_be: Contents, found: dict[str, Listing]) -> Difference:
    """Compare the kernel's tables with the static rules and the elements of these contents."""
    wanted = elements(config, should_be)
    if TABLE not in found:
        if not should_be and not config.guest_networks:
            return Difference("", {}, {})  # nothing was ever published
        missing = {place: set(elements) for place, elements in wanted.items()}
        return Difference(f"table {TABLE} is not there", missing, {})
    missing, extra = {}, {}
    for place in filled(config):
        name, of = place
        here = wanted.get(place, {})
        there = found[name].maps.get(of, {}) if name in found else {}
        missing[place] = {key for key, _ in here.items() - there.items()}
        extra[place] = there.keys() - here.keys()
    wrong = {name: _wrong_chains(name, config, found) for name in table.NAMES}
    # Only steering needs the bridge's table to pass packets on.
    in_bridge = "" if config.steered_networks else wrong.pop(BRIDGE_TABLE)
    return Difference(
        _wrong_revision(config, found[TABLE])
        or next(filter(None, wrong.values()), "")
        or _wrong_limits(should_be, found[TABLE]),
        {place: keys for place, keys in missing.items() if keys},
        {place: keys for place, keys in extra.items() if keys},
        in_bridge,
    )


def _wrong_revision(config: NodeConfig, listing: Listing) -> str:
    if table.revision(config) in listing.maps.get("revision", {}).values():
        return ""
    return f"table {TABLE} is not the one of this config"


def _wrong_limits(should_be: Contents, listing: Listing) -> str:
    for found in limits.limits_of(should_be.ports):
        chain, count = limits.chain(found), limits.rule_count(found)
        if listing.chains.get(chain) != count:
            return f"table {TABLE}: chain {chain} does not have its {count} rules"
    return ""


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

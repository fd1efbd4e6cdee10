"""Output of ``nft list table`` -> the elements of each map, the number of rules of each chain."""

from __future__ import annotations

import re

from cgw_hooks.core.named_tuple import NamedTuple

#: A chain without rules has no line between its braces.
_OBJECT = re.compile(r"^\t(map|set|chain) (\S+) \{[^\n]*\n(.*?)^\t\}", re.DOTALL | re.MULTILINE)
_ELEMENTS = re.compile(r"elements = \{ (.*?) \}", re.DOTALL)
_BASE_CHAIN = "type "
#: What follows the key of an element that counts, also in a listing without numbers.
_COUNTER = " counter"
_DORMANT = re.compile(r"^\tflags [^\n]*\bdormant\b", re.MULTILINE)


class Listing(NamedTuple):
    """A table as the kernel has it."""

    #: Map or set -> key -> data; the data is empty in a set.
    maps: dict[str, dict[str, str]]
    #: Chain -> number of rules.
    chains: dict[str, int]
    #: Whether the kernel passes no packet to the table (``flags dormant`` of nft).
    is_dormant: bool = False


def parse_listing(text: str) -> Listing:
    """Parse the listing of one table. Its protocols must be numbers (``nft -n``)."""
    found = Listing({}, {}, bool(_DORMANT.search(text)))
    for kind, name, body in _OBJECT.findall(text):
        if kind != "chain":
            found.maps[name] = _elements(body)
        else:
            rules = [line for line in body.splitlines() if not line.strip().startswith(_BASE_CHAIN)]
            found.chains[name] = len([rule for rule in rules if rule.strip()])
    return found


def _elements(body: str) -> dict[str, str]:
    listed = _ELEMENTS.search(body)
    if not listed:
        return {}
    pairs = (element.strip().partition(" : ") for element in listed[1].split(","))
    return {key.partition(_COUNTER)[0]: data for key, _, data in pairs if key}

"""Reads the published ports from the kernel's ruleset, if no record tells them.

It reads all elements, so the usual hook call must not use it.
"""

from __future__ import annotations

from ipaddress import ip_address

from cgw_hooks.core.parse.nft_listing import parse_listing
from cgw_hooks.core.published_port import ANY_ADDRESS, PublishedPort
from cgw_hooks.core.rules.elements import map_names
from cgw_hooks.core.rules.names import PROTOCOL_NUMBER, TABLE
from cgw_hooks.errors import RulesetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.host.nft import Nft

_PROTOCOLS = {str(number): name for name, number in PROTOCOL_NUMBER.items()}


def read(nft: Nft) -> list[PublishedPort]:
    """Return one published port per element of the maps, without source networks.

    The result is empty if there is no table. An element that this version cannot have written is
    left out.
    """
    try:
        maps = parse_listing(nft.list_table(TABLE)).maps
    except RulesetError:
        return []
    found = []
    for name in map_names():
        for key, data in maps.get(name, {}).items():
            try:
                found.append(_port(name, key, data))
            except (ValueError, KeyError, IndexError):
                continue
    return found


def _port(name: str, key: str, data: str) -> PublishedPort:
    """Parse an element as `table.elements` spells it."""
    *addresses, protocol, ports = key.split(" . ")
    target, _, to = data.partition(" . ")
    start, _, end = ports.partition("-")
    family = 4 if name.startswith(("published4", "ranges4")) else 6
    # The last address is the listening address; it may be a network that holds all addresses.
    listen = addresses[-1].partition("/")[0] if addresses else ANY_ADDRESS[family]
    return PublishedPort(
        protocol=_PROTOCOLS[protocol],
        listen_address=ip_address(listen),
        start=int(start),
        end=int(end or start),
        to=int(to or start),
        target_address=ip_address(target),
    )

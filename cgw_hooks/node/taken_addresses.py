"""What is recorded of the addresses that this node has taken over (``node/takeover``).

It is among the changes of ``cgw node up``, so ``cgw node down`` gives the addresses back.
"""

from __future__ import annotations

from ipaddress import ip_address

from cgw_hooks.core.rules.gateway_settings import DeviceAddress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from cgw_hooks.core.published_port import Address

#: The key of recorded changes: node -> [device, address, prefix length] of each of its addresses.
_TAKEN = "taken"


def by_node(changes: dict[str, Any]) -> dict[str, list[DeviceAddress]]:
    """Return the nodes that this one stands in for, and where it has their addresses."""
    return {
        node: [
            DeviceAddress(device, ip_address(address), length, is_shared=True)
            for device, address, length in entries
        ]
        for node, entries in changes.get(_TAKEN, {}).items()
    }


def addresses(changes: dict[str, Any]) -> set[Address]:
    """Return all addresses of other nodes that this one has."""
    return {place.address for places in by_node(changes).values() for place in places}


def record(changes: dict[str, Any], node: str, places: Iterable[DeviceAddress]) -> None:
    """Note where this node has the addresses of another one."""
    entries = [[place.device, str(place.address), place.prefix_length] for place in places]
    changes.setdefault(_TAKEN, {})[node] = entries


def remove(changes: dict[str, Any], node: str) -> bool:
    """Note that this node does not stand in for another one; return whether it did."""
    return changes.get(_TAKEN, {}).pop(node, None) is not None

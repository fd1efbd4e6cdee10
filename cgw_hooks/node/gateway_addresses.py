"""Finds what ``cgw node up`` must set again or anew.

Addresses are gone with a bridge that was made anew, for example. Routes of answers, and another
config of conntrackd, are needed when the registry names another node.
"""

from __future__ import annotations

from _socket import if_nameindex
from ipaddress import ip_address

from cgw_hooks.core import conntrackd_config
from cgw_hooks.core.rules import gateway_settings
from cgw_hooks.host import addresses, conntrackd

#: The key of recorded changes: node -> [device, address, prefix length] of each address that this
#: node has taken over from it.
TAKEN = "taken"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Address
    from cgw_hooks.node.publisher import Publisher


def wrong(publisher: Publisher) -> list[str]:
    """Return what is not as ``cgw node up`` would set it, in words that follow "the gateway".

    These are addresses that their devices have lost, and routes of answers: the list that ``up``
    has made of these says which it has set. What is lost with a bridge is lost with its addresses.
    An address whose device does not exist is left out: it cannot be set again yet. Raises
    ``RecordError``, and ``OSError`` if the kernel does not answer.
    """
    config, changes = publisher.config, publisher.state.gateway_changes()
    if not config.guest_networks or not changes:  # it was never up
        return []
    found = [*_lost_addresses(config), *_wrong_routes(config, changes)]
    return [*found, *_wrong_replication(config, publisher.state.directory)]


def taken_over(changes: dict[str, Any]) -> set[Address]:
    """Return the addresses of other nodes that this one stands in for (``node/takeover``)."""
    entries = [entry for of_node in changes.get(TAKEN, {}).values() for entry in of_node]
    return {ip_address(address) for _, address, _ in entries}


def _lost_addresses(config: NodeConfig) -> list[str]:
    there = {(name, address) for v in (4, 6) for address, name in addresses.devices(v).items()}
    devices = {name for _, name in if_nameindex()}
    return [
        f"has lost the address {each.address} of {each.device}"
        for each in gateway_settings.addresses(config)
        if each.device in devices and (each.device, each.address) not in there
    ]


def _wrong_routes(config: NodeConfig, changes: dict[str, Any]) -> list[str]:
    wanted = [route.to_list() for route in gateway_settings.steering_routes(config)]
    found = changes.get("routes", [])
    return [
        *(f"has no route of answers by {route[-2]}" for route in wanted if route not in found),
        *(f"has a needless route of answers by {r[-2]}" for r in found if r not in wanted),
    ]


def _wrong_replication(config: NodeConfig, directory: str) -> list[str]:
    if not conntrackd_config.is_needed(config):
        return []
    found = conntrackd.read_config(conntrackd_config.config_file(directory))
    is_right = found == conntrackd_config.text(config, directory)
    return [] if is_right else ["has another config of conntrackd than it needs"]

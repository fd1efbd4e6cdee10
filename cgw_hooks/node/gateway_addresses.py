"""Finds what ``cgw node up`` must set again or anew.

Addresses are gone with a bridge that was made anew, for example. Routes of answers, and another
config of conntrackd, are needed when the registry names another node.
"""

from __future__ import annotations

from _socket import if_nameindex

from cgw_hooks.core import conntrackd_config
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.rules import gateway_settings
from cgw_hooks.host import addresses, bridges, conntrackd, routing_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cgw_hooks.core.node_config import NodeConfig
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
    found = [*_lost_addresses(config), *_wrong_macs(config), *_wrong_routes(config, changes)]
    return [*found, *_wrong_replication(config, publisher.state.directory)]


def problems(publisher: Publisher) -> Iterator[Problem]:
    """Yield what guests and clients notice of it. Raises ``RecordError``, and ``OSError``."""
    config, changes = publisher.config, publisher.state.gateway_changes()
    if config.guest_networks and changes:
        for text in (
            *_lost_addresses(config),
            *_wrong_macs(config),
            *_wrong_routes(config, changes),
        ):
            yield Problem("gateway", "node", f"the gateway {text}", "run: cgw node up")


def _lost_addresses(config: NodeConfig) -> list[str]:
    there = {(name, address) for v in (4, 6) for address, name in addresses.devices(v).items()}
    devices = {name for _, name in if_nameindex()}
    return [
        f"has lost the address {each.address} of {each.device}"
        for each in gateway_settings.addresses(config)
        if each.device in devices and (each.device, each.address) not in there
    ]


def _wrong_macs(config: NodeConfig) -> list[str]:
    wanted = gateway_settings.bridge_macs(config)
    there = {bridge: bridges.mac_address(bridge) for bridge in wanted}
    return [
        f"has lost the MAC address {mac} of {bridge}"
        for bridge, mac in wanted.items()
        if there[bridge] not in {"", mac}
    ]


def _wrong_routes(config: NodeConfig, changes: dict[str, Any]) -> list[str]:
    routes = list(gateway_settings.steering_routes(config))
    wanted = [route.to_list() for route in routes]
    found = changes.get("routes", [])
    rules = {v: routing_rules.marked_tables(v) for v in {r.subnet.version for r in routes}}
    lost = [
        route.to_list()
        for route in routes
        if (route.mark, route.table) not in rules[route.subnet.version]
    ]
    return [
        *(
            f"has no route of answers by {route[-2]}"
            for route in wanted
            if route not in found or route in lost
        ),
        *(f"has a needless route of answers by {r[-2]}" for r in found if r not in wanted),
    ]


def _wrong_replication(config: NodeConfig, directory: str) -> list[str]:
    if not conntrackd_config.is_needed(config):
        return []
    found = conntrackd.read_config(conntrackd_config.config_file(directory))
    is_right = found == conntrackd_config.text(config, directory)
    return [] if is_right else ["has another config of conntrackd than it needs"]

"""Drops ARP and neighbour discovery for the gateway address on the inter-node devices.

All nodes answer for that address, so a guest would otherwise learn another node's MAC address.
The rules are in the bridge family and match device names. A netdev chain is no alternative: its
devices must exist when it is made, and it silently loses a device that is deleted and made
again.
"""

from __future__ import annotations

from cgw_hooks.core.rules.commands import devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig
    from cgw_hooks.core.rules.commands import Table

_PRIORITY = -300  # before the usual filter priority (-200) and before br_netfilter
_HOOKS = {"prerouting": "iifname", "forward": "oifname", "output": "oifname"}


def is_needed(config: NodeConfig) -> bool:
    """Whether the config names an inter-node device."""
    return any(network.internode_devices for network in config.guest_networks)


def add_to(table: Table, config: NodeConfig) -> None:
    """Add the filter's chains to the table of the bridge."""
    for hook in _HOOKS:
        table.add_chain(hook, f"type filter hook {hook} priority {_PRIORITY}")
    for network in config.guest_networks:
        if network.internode_devices:
            table.add_rules(_rules(network))


def _rules(network: GuestNetwork) -> Iterator[str]:
    for hook, device in _HOOKS.items():
        for frames in _gateway_frames(network):
            yield f"{hook} {device} {devices(network.internode_devices)} {frames} drop"


def _gateway_frames(network: GuestNetwork) -> Iterator[str]:
    """Yield matches for the frames that ask for, or announce, the gateway's MAC address."""
    address = network.gateway_address
    if address.version == 4:  # noqa: PLR2004
        yield f"arp saddr ip {address}"
        yield f"arp daddr ip {address}"
        return
    discovery = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"
    yield f"ip6 saddr {address} {discovery}"
    # The target address of both messages (RFC 4861 sections 4.3 and 4.4), and of duplicate
    # address detection. nft 1.0.6 has no name for this field.
    yield f"{discovery} @th,64,128 {int(address):#034x}"

"""Drops ARP and neighbour discovery for the gateway address on the inter-node devices.

All nodes answer for that address, so a guest would otherwise learn another node's MAC address.
The rules are in the bridge family and match device names. A netdev chain is no alternative: its
devices must exist when it is made, and it silently loses a device that is deleted and made
again.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig

TABLE = "bridge cgw"

_PRIORITY = -300  # before the usual filter priority (-200) and before br_netfilter
_HOOKS = {"prerouting": "iifname", "forward": "oifname", "output": "oifname"}


def rules(config: NodeConfig) -> list[str]:
    """Return the bridge table as nft commands; none if no inter-node device is configured."""
    networks = [network for network in config.guest_networks if network.internode_devices]
    if not networks:
        return []
    lines = [f"add table {TABLE}"]
    for hook in _HOOKS:
        lines += [
            f"add chain {TABLE} {hook} {{ type filter hook {hook} priority {_PRIORITY}; }}",
            f"flush chain {TABLE} {hook}",
        ]
    for network in networks:
        devices = "{ " + ", ".join(f'"{device}"' for device in network.internode_devices) + " }"
        for hook, device in _HOOKS.items():
            lines += [
                f"add rule {TABLE} {hook} {device} {devices} {frames} drop"
                for frames in _gateway_frames(network)
            ]
    return lines


def rule_counts(config: NodeConfig) -> dict[str, dict[str, int]]:
    """Return table -> chain -> number of rules; empty if the config needs no bridge table."""
    prefix = f"add rule {TABLE} "
    counts: dict[str, int] = {}
    for line in rules(config):
        if line.startswith(prefix):
            chain = line.removeprefix(prefix).partition(" ")[0]
            counts[chain] = counts.get(chain, 0) + 1
    return {TABLE: counts} if counts else {}


def remove() -> str:
    """Return nft text that removes the bridge table, even if there is none."""
    return f"add table {TABLE}\ndelete table {TABLE}\n"


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

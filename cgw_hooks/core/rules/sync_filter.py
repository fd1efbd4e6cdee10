"""Lets conntrackd's messages in only from other nodes.

conntrackd listens on every address and believes every message, so a guest or a client could
otherwise write into the table of tracked flows. Its messages are sent to a multicast group on the
guest bridge. All else to its port is dropped:

- in *bridge cgw*, what comes for the group from any port of a bridge but the inter-node devices;
- in *inet cgw*, what comes for the node by another device, or for another address.
"""

from __future__ import annotations

from cgw_hooks.core.conntrackd_config import GROUPS, PORT, is_needed, sync_network
from cgw_hooks.core.rules.commands import IP, devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig


def bridge_rules(config: NodeConfig) -> list[str]:
    """Return the rules of the bridge's chain prerouting; none without conntrackd."""
    if not is_needed(config):
        return []
    network = sync_network(config)
    # Not with "meta ibrname": not every kernel has nft_meta_bridge.
    others = f"iifname != {devices(network.internode_devices)}"
    return [f"{others} {_group(network.subnet.version)} udp dport {PORT} drop"]


def input_rules(config: NodeConfig) -> list[str]:
    """Return the rules of a filter chain of the hook input; none without conntrackd."""
    if not is_needed(config):
        return []
    network = sync_network(config)
    version = network.subnet.version
    return [
        f'udp dport {PORT} iifname "{network.bridge}" {_group(version)} accept',
        f"udp dport {PORT} drop",
    ]


def _group(version: int) -> str:
    return f"{IP[version]} daddr {GROUPS[version]}"

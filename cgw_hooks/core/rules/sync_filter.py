"""Lets conntrackd's messages in only from other nodes.

conntrackd listens on every address and believes every message, so a guest or a client could
otherwise write into the table of tracked flows. Its messages are sent to a multicast group on the
guest bridge. All else to its port is dropped:

- in *bridge cgw*, what comes for the group from any port of a bridge but the inter-node devices;
- in *inet cgw*, what comes for the node by another device, or for another address.
"""

from __future__ import annotations

from cgw_hooks.core.conntrackd_config import GROUP, PORT, is_needed, sync_network
from cgw_hooks.core.rules.commands import devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig

_MESSAGES = f"ip6 daddr {GROUP} udp dport {PORT}"


def bridge_rules(config: NodeConfig) -> list[str]:
    """Return the rules of the bridge's chain prerouting; none without conntrackd."""
    if not is_needed(config):
        return []
    # Not with "meta ibrname": not every kernel has nft_meta_bridge.
    others = f"iifname != {devices(sync_network(config).internode_devices)}"
    return [f"{others} {_MESSAGES} drop"]


def input_rules(config: NodeConfig) -> list[str]:
    """Return the rules of a filter chain of the hook input; none without conntrackd."""
    if not is_needed(config):
        return []
    return [
        f'iifname "{sync_network(config).bridge}" {_MESSAGES} accept',
        f"udp dport {PORT} drop",
    ]

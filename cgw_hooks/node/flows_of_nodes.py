"""What this node tracks of another node's connections, when it takes that node over."""

from __future__ import annotations

from cgw_hooks.core.node_config import FULL_NAT
from cgw_hooks.core.node_flows import touches
from cgw_hooks.core.rules.return_path import marks
from cgw_hooks.host import node_flows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig, RemoteNode
    from cgw_hooks.core.published_port import Address


def addresses(node: RemoteNode) -> frozenset[Address]:
    """Return all addresses of a node."""
    return frozenset((*node.node_addresses, *node.uplink_addresses))


def forget_clashing(config: NodeConfig, node: RemoteNode) -> int:
    """Delete what this node knows of a dead node's connections; return the number of flows.

    It knows them from another side, and the kernel takes no second flow with the same end.
    """
    theirs = addresses(node)
    count = node_flows.delete_flows(theirs, lambda ends: touches(ends, theirs))
    for network in config.guest_networks:
        address = node.address_in(network.subnet)
        if address and network.return_path != FULL_NAT:
            mark = marks.mark(address, config.mark_mask)
            count += node_flows.delete_marked_flows(mark, config.mark_mask)
    return count


def own_copies(config: NodeConfig, node: RemoteNode) -> int:
    """Make the copies of a node's flows this node's own (`return_path/ct_sync`); count them."""
    count = 0
    for network in config.guest_networks:
        address = node.address_in(network.subnet)
        if address:
            theirs = marks.mark(address, config.mark_mask)
            own = marks.mark(network.node_address, config.mark_mask)
            count += node_flows.change_mark(theirs, own, config.mark_mask)
    return count

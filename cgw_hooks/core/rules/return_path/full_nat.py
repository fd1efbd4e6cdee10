"""FULL-NAT: a guest's answers find back through the node where the client came in.

The guest sees the node's own address as the client of every published port.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import GuestNetwork

_IP = {4: "ip", 6: "ip6"}


def rule(network: GuestNetwork) -> str:
    """The SNAT rule of one guest network, for the chain postrouting."""
    # "ct status dnat": with br_netfilter on, packets that are only bridged through
    # this node, on their way from another one, pass here as well.
    ip = _IP[network.subnet.version]
    return (
        f'ct status dnat {ip} daddr {network.subnet} oifname "{network.bridge}" '
        f"snat {ip} to {network.node_address}"
    )

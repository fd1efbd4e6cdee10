"""FULL-NAT: a guest's answers return through the node where the client came in.

The guest sees the node address as the client of every published port.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import GuestNetwork

_IP = {4: "ip", 6: "ip6"}


def rule(network: GuestNetwork) -> str:
    """Return the SNAT rule of one guest network, for the chain postrouting."""
    # "ct status dnat" is needed because, with br_netfilter on, this chain also gets packets that
    # come from another node and are only bridged here.
    ip = _IP[network.subnet.version]
    return (
        f'ct status dnat {ip} daddr {network.subnet} oifname "{network.bridge}" '
        f"snat {ip} to {network.node_address}"
    )

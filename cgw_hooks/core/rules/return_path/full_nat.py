"""FULL-NAT: a guest's answers return through the node where the client came in.

The guest sees the node address as the client of every published port.
"""

from __future__ import annotations

from cgw_hooks.core.node_config import CT_SYNC, FULL_NAT
from cgw_hooks.core.rules.commands import IP, listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig


def rules(network: GuestNetwork, config: NodeConfig) -> Iterator[str]:
    """Yield the SNAT rules of one guest network, for the chain postrouting.

    With another return path they hold for those clients alone whose address cannot be kept.
    """
    # "ct status dnat" is needed because, with br_netfilter on, this chain also gets packets that
    # come from another node and are only bridged here.
    ip = IP[network.subnet.version]
    to_guest = f'ct status dnat {ip} daddr {network.subnet} oifname "{network.bridge}"'
    translation = f"snat {ip} to {network.node_address}"
    if network.return_path == FULL_NAT:
        yield from (f"{to_guest} {rule}" for rule in _for_other_nodes(network, config))
        yield f"{to_guest} {translation}"
        return
    from cgw_hooks.core.rules.return_path import steer

    yield f"{to_guest} {steer.full_nat_clients(network, config)} {translation}"
    yield f"{to_guest} fib saddr type local {translation}"
    if network.return_path == CT_SYNC:
        from cgw_hooks.core.rules.return_path import ct_sync

        yield f"{to_guest} {ct_sync.mark_rule(network, config)}"


def _for_other_nodes(network: GuestNetwork, config: NodeConfig) -> Iterator[str]:
    """Yield the rules for addresses that this node has while it stands in for another one.

    The other node can carry such a connection on when it is back, since the node address is its
    own. As long as nothing is taken over, no packet matches.
    """
    ip = IP[network.subnet.version]
    for node in config.remote_nodes if config.replicates else ():
        inside = node.address_in(network.subnet)
        outside = [a for a in node.uplink_addresses if a.version == network.subnet.version]
        if inside and outside:
            yield f"ct original {ip} daddr {listed(outside)} snat {ip} to {inside}"

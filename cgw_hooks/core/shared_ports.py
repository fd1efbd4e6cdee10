"""Which ports of a guest the other nodes of the cluster must publish as well.

Hook calls of guests that stop load this module: it must import little.
"""

from __future__ import annotations

from cgw_hooks.core.record import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.record import Record


def shared_ports(records: Iterable[Record], config: NodeConfig) -> tuple[PublishedPort, ...]:
    """Return the ports of one guest's records that other nodes must publish as well.

    Only guests in a declared guest network can be reached from other nodes. A port whose target is
    not known yet is reserved if its guest has an interface there.
    """
    bridges = {network.bridge for network in config.guest_networks}
    found: dict[PublishedPort, None] = {}
    for record in records:
        guest = record.guest
        if record.state not in {State.RESERVED, State.PUBLISHED} or guest.is_remote:
            continue
        has_link = any(interface.bridge in bridges for interface in guest.leased)
        for port in guest.ports:
            target = port.target_address
            if has_link if target is None else config.guest_network_of(target):
                found[port] = None
    return tuple(found)

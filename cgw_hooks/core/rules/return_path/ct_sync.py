"""CT-SYNC: a guest sees the client's own address, and its own node sends the answers out.

*Entry node*: the node that the client has connected to, which has translated the flow. It sends the
client's packets to the guest, and conntrackd brings its tracked flow to all nodes (a *copy*). The
flow's conntrack mark says which node is its entry node; copies have it, too.

- Client to guest: frames of the entry node are bridged to the guest, and the guest's node does not
  track them. Its bridge learns which node sends the packets of a flow (`synced_bridge`).
- Guest to client: as soon as the copy is ASSURED, the guest's node translates the answers itself
  and sends them out by its own uplink, with the entry node's address. Until then, and whenever it
  has no such copy, it hands them to the entry node (`synced_answers`).

So nothing is lost if conntrackd is late, hangs or is gone: then all answers go by the entry node.
Packets that begin or end a TCP connection always do, since the entry node must know its state.
"""

from __future__ import annotations

from cgw_hooks.core.rules.commands import Table
from cgw_hooks.core.rules.names import SYNC_BRIDGE_TABLE, SYNC_FAMILY_TABLES
from cgw_hooks.core.rules.return_path import synced_answers, synced_bridge
from cgw_hooks.core.rules.return_path.synced_network import SyncedNetwork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig


def tables(config: NodeConfig) -> Iterator[Table]:
    """Yield the tables of this return path; all guest networks of the config have it."""
    bridge = Table(SYNC_BRIDGE_TABLE)
    synced_bridge.add_to(bridge, config, _networks(config))
    yield bridge
    for family, name in SYNC_FAMILY_TABLES.items():
        of_family = _networks(config, family)
        if of_family:
            table = Table(name)
            synced_answers.add_to(table, family, of_family)
            yield table


def foundation(config: NodeConfig) -> str:
    """Return text that must be a transaction of its own before the tables are made.

    The kernel registers the hooks of new chains before their rules hold. With br_netfilter, it
    would track the frames that this node bridges for others. An end of such a flow is that of a
    copy, so the kernel would give the client another port, and the guest would reset it.
    """
    lines = []
    for family, name in SYNC_FAMILY_TABLES.items():
        of_family = _networks(config, family)
        if of_family:
            table = Table(name)
            synced_answers.add_untracked(table, of_family)
            lines += table.commands()
    return "\n".join(lines) + "\n"


def _networks(config: NodeConfig, family: int | None = None) -> list[SyncedNetwork]:
    return [
        SyncedNetwork(config, network, str(number))
        for number, network in enumerate(config.guest_networks)
        if family in {None, network.subnet.version}
    ]


def mark_rule(network: GuestNetwork, config: NodeConfig) -> str:
    """Return the statement for a flow that this node has translated: it is the entry node."""
    synced = SyncedNetwork(config, network, "")
    return synced.set_mark("ct", synced.own_mark)

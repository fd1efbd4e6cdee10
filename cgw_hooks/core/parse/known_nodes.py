"""The other nodes that the registry names: they are held against the rules of ``[[remote-node]]``.

Hook calls load this module if the config has a registry and needs to know the other nodes.
"""

from __future__ import annotations

from cgw_hooks.core.node_config import RemoteNode
from cgw_hooks.core.parse import fields
from cgw_hooks.core.parse.nodes_config import Members, refuse_no_uplink
from cgw_hooks.errors import InvalidConfig, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.node_config import NodeConfig

#: Addresses of one kind that the registry may name of a node.
MOST_ADDRESSES = 64


def are_needed(config: NodeConfig) -> bool:
    """Whether a node with this config must know the others, and has them from the registry."""
    if config.registry is None:
        return False
    return bool(config.guest_networks) and (config.replicates or bool(config.steered_networks))


def add_known(
    config: NodeConfig, nodes: Iterable[RemoteNode]
) -> tuple[NodeConfig, list[InvalidConfig]]:
    """Add the nodes that the registry names. Return the config, and why others were left out.

    What the config says of a node replaces what the registry says. Of two nodes that could not be
    told apart, the first one counts. A node may lack an address in some guest networks: its config
    may be older or newer than this one.
    """
    if not are_needed(config):
        return config, []
    members = [Members(network, config.mark_mask) for network in config.guest_networks]
    for node in config.remote_nodes:
        for each in members:
            each.add(node)
    named = {config.name, *(node.name for node in config.remote_nodes)}
    known, refused = [], []
    for node in nodes:
        if node.name in named:
            continue
        try:
            _refuse_useless(node, config)
            for each in members:
                each.refuse(node, _where(node))
        except InvalidConfig as error:
            refused.append(error)
            continue
        for each in members:
            each.add(node)
        named.add(node.name)
        known.append(node)
    # The order is that of the rules: it must not depend on who was there first.
    known.sort(key=lambda node: node.name)
    return config._replace(remote_nodes=(*config.remote_nodes, *known)), refused


def _refuse_useless(node: RemoteNode, config: NodeConfig) -> None:
    """Refuse a node that this one cannot reach, or could not know again."""
    networks = config.steered_networks or config.guest_networks
    if not any(node.address_in(network.subnet) for network in networks):
        raise InvalidConfig(
            _where(node),
            "it has no node address in the guest networks of this node",
            "give all nodes the same [[guest-network]] tables",
        )
    if config.steered_networks and not node.bridge_macs:
        raise InvalidConfig(
            _where(node),
            "it has no MAC address by which its answers could be known",
            "give all nodes the same return-path",
        )
    for network in config.guest_networks:
        refuse_no_uplink(network, node, _where(node))


def _where(node: RemoteNode) -> str:
    return f"node {quoted(node.name)}"


def node_from_texts(
    name: str, addresses: Iterable[str], uplinks: Iterable[str], macs: Iterable[str]
) -> RemoteNode:
    """Return a node that another node has described. Raises ``ValueError``.

    What should be texts may be anything that JSON has.
    """
    node = RemoteNode(
        fields.parse_name(name),
        tuple(fields.parse_guest_address(str(text)) for text in addresses),
        tuple(fields.parse_guest_address(str(text)) for text in uplinks),
        tuple(fields.parse_mac(str(text)) for text in macs),
    )
    if not node.node_addresses:
        raise ValueError("it names no node address")
    if max(map(len, node[1:])) > MOST_ADDRESSES:
        raise ValueError(f"it names more than {MOST_ADDRESSES} addresses of one kind")
    return node


def node_to_texts(node: RemoteNode) -> tuple[list[str], list[str], list[str]]:
    """Return what ``node_from_texts`` reads, but for the name."""
    addresses, uplinks = list(map(str, node.node_addresses)), list(map(str, node.uplink_addresses))
    return addresses, uplinks, list(node.bridge_macs)

"""Decides which config holds at this moment.

Hook calls load this module: it must import nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.host.state.state import State


def config_in_force(config: NodeConfig, state: State) -> NodeConfig:
    """Return the config with the nodes that the registry names.

    After ``cgw node down``, until ``up``, return it without its guest networks. Otherwise the next
    sync, for example that of the agent, would make the node a gateway again.
    """
    if config.guest_networks and state.is_gateway_down():
        return config._replace(guest_networks=(), remote_guests=(), registry=None)
    return with_known_nodes(config, state)


def with_known_nodes(config: NodeConfig, state: State) -> NodeConfig:
    """Return the config with the other nodes that the registry names, as the agent last knew."""
    if config.registry is None or not (config.replicates or config.steered_networks):
        return config
    from cgw_hooks.core.parse.known_nodes import add_known
    from cgw_hooks.host.state.known_nodes import KnownNodes

    return add_known(config, KnownNodes(state.directory).read())[0]

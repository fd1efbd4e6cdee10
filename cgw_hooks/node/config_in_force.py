"""Decides which config holds at this moment.

Hook calls load this module: it must import nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.host.state.state import State


def config_in_force(config: NodeConfig, state: State) -> NodeConfig:
    """Return the config without its guest networks after ``cgw node down``, until ``up``.

    Otherwise the next sync, for example that of the agent, would make the node a gateway again.
    """
    if config.guest_networks and state.is_gateway_down():
        return config._replace(guest_networks=(), remote_guests=(), registry=None)
    return config

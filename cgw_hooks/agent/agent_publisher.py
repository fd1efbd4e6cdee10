"""The publisher of a process that outlives changes of config, gateway and cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgw_hooks.core.parse.known_nodes import add_known, are_needed
from cgw_hooks.host.state.known_nodes import KnownNodes
from cgw_hooks.node.config_in_force import config_in_force
from cgw_hooks.node.publisher import Publisher

if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig, RemoteNode


class AgentPublisher(Publisher):
    """Its config can be replaced, and follows ``cgw node up`` and ``down`` and the registry."""

    #: The config as its file says, whatever ``cgw node down`` has taken out of service.
    loaded: NodeConfig
    _nodes: KnownNodes | None = None
    #: The last config in force, after the config and the nodes that it was made from.
    _made: tuple[NodeConfig, tuple[RemoteNode, ...], NodeConfig] | None = None

    @property
    def known_nodes(self) -> KnownNodes:
        """The file of the other nodes that the registry names."""
        if self._nodes is None:
            self._nodes = KnownNodes(self.state.directory)
        return self._nodes

    @property
    def config(self) -> NodeConfig:
        """The config that holds at this moment. It is asked for all the time, so it is kept."""
        loaded = self.loaded
        if not are_needed(loaded) or self.state.is_gateway_down():
            return config_in_force(loaded, self.state)
        nodes, made = self.known_nodes.read(), self._made
        if made is None or made[0] is not loaded or made[1] is not nodes:
            made = self._made = loaded, nodes, add_known(loaded, nodes)[0]
        return made[2]

    @config.setter
    def config(self, loaded: NodeConfig) -> None:
        self.loaded = loaded

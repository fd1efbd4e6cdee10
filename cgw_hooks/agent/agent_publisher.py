"""The publisher of a process that outlives changes of the config and of the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgw_hooks.node.config_in_force import config_in_force
from cgw_hooks.node.publisher import Publisher

if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig


class AgentPublisher(Publisher):
    """Its config can be replaced, and follows ``cgw node up`` and ``down``."""

    #: The config as its file says, whatever ``cgw node down`` has taken out of service.
    loaded: NodeConfig

    @property
    def config(self) -> NodeConfig:
        """The config that holds at this moment."""
        return config_in_force(self.loaded, self.state)

    @config.setter
    def config(self, loaded: NodeConfig) -> None:
        self.loaded = loaded

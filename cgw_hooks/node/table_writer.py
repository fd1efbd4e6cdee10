"""Writes published ports into the kernel's table: those that change, or all of them.

A hook call that changes the ruleset loads this module; prepare does not.
"""

from __future__ import annotations

from cgw_hooks.core.rules import table
from cgw_hooks.errors import RulesetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.host.nft import Nft


class TableWriter:
    """Writes the table of a node with this config. Each method is one transaction."""

    def __init__(self, config: NodeConfig, nft: Nft) -> None:
        self._config = config
        self._nft = nft

    def change(self, *, add: Collection[PublishedPort], delete: Collection[PublishedPort]) -> None:
        """Add and delete the elements of some ports.

        Raises ``RulesetError`` if the table is missing or was not made from this config.
        """
        self._nft.apply(table.change(self._config, add=add, delete=delete))

    def write_all(self, ports: Collection[PublishedPort]) -> None:
        """Make the table hold the static rules and exactly these ports."""
        try:
            self._nft.apply(table.restore(self._config, ports))
        except RulesetError:  # another version's objects have other types
            self._nft.apply(table.replace(self._config, ports))

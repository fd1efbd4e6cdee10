"""Writes published ports into the kernel's table: those that change, or all of them.

A hook call that changes the ruleset loads this module; prepare does not.
"""

from __future__ import annotations

from cgw_hooks.core.rules import table
from cgw_hooks.core.rules.commands import remove
from cgw_hooks.core.rules.names import BRIDGE_TABLE, LIMIT_CHAIN, TABLE
from cgw_hooks.errors import RulesetError
from cgw_hooks.host.nft_tables import object_names, table_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.record import Contents
    from cgw_hooks.host.nft import Nft


class TableWriter:
    """Writes the table of a node with this config. Each method is one transaction."""

    def __init__(self, config: NodeConfig, nft: Nft) -> None:
        self._config = config
        self._nft = nft

    def change(self, before: Contents, after: Contents) -> None:
        """Change the elements of ``before`` to those of ``after``; all others stay.

        Raises ``RulesetError`` if the table is missing or was not made from this config.
        """
        self._nft.apply(table.change(self._config, before, after))
        self._remove_limits(before, after)

    def _remove_limits(self, before: Contents, after: Contents) -> None:
        """Delete the chains of limits that these ports no longer have, unless others have them."""
        if not any(port.limits for port in before.ports):
            return
        from cgw_hooks.core.rules import limits

        stays = limits.limits_of(after.ports)
        for gone in limits.limits_of(before.ports):
            if gone not in stays:
                try:
                    self._nft.apply(limits.removal(gone))
                except RulesetError:  # the kernel refuses it: a port has it
                    continue

    def _unused_limits(self, held: Contents) -> str:
        """Return text that deletes the chains and sets of limits that no port has."""
        if not any(name.startswith(LIMIT_CHAIN) for _, name in self._names("chain")):
            return ""
        from cgw_hooks.core.rules import limits

        chains, sets = (
            [name for place, name in self._names(kind) if place == TABLE]
            for kind in ("chain", "set")
        )
        return limits.removal_of_unused(held.ports, chains, sets)

    def _names(self, kind: str) -> set[tuple[str, str]]:
        try:
            return object_names(kind)
        except OSError as error:
            raise RulesetError("nftables", f"the kernel lists no chains: {error}") from error

    def write_all(self, held: Contents) -> None:
        """Make the tables hold the static rules and exactly these contents."""
        there = self._tables_of_host()
        unneeded = self._removal(there)
        if self._config.is_synced and TABLE not in there:
            from cgw_hooks.core.rules.return_path import ct_sync

            self._nft.apply(ct_sync.foundation(self._config))
        try:
            text = table.restore(self._config, held) + self._of_former_nodes()
            text += self._unused_limits(held)
            self._nft.apply(unneeded + text)
        except RulesetError:  # another version's objects have other types
            self._nft.apply(unneeded + table.replace(self._config, held))

    def _tables_of_host(self) -> set[str]:
        try:
            return table_names()
        except OSError as error:
            raise RulesetError("nftables", f"the kernel lists no tables: {error}") from error

    def _removal(self, there: set[str]) -> str:
        """Return text that removes what another config has left and this one does not need."""
        needed = table.tables(self._config)
        text = "".join(remove(n) for n in table.NAMES if n in there and n not in needed)
        is_lifting = bool(self._config.steered_networks) and not self._config.is_synced
        if BRIDGE_TABLE in there and BRIDGE_TABLE in needed and not is_lifting:
            from cgw_hooks.core.rules.return_path import lift

            text += lift.removal(BRIDGE_TABLE)
        return text

    def _of_former_nodes(self) -> str:
        """Return text that deletes the chains and sets of nodes that are no more."""
        if not self._config.steered_networks:
            return ""
        from cgw_hooks.core.rules.return_path.former_nodes import removals  # not for FULL-NAT

        chains, sets = self._names("chain"), self._names("set")
        return removals(table.static_rules(self._config), chains, sets)

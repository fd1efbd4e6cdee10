"""The exceptions in libvirt's own firewall: there as long as a guest on the bridge needs one.

Loaded by every hook call of a guest that publishes: keep it light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgw_hooks.host.libvirt_firewall import Firewall
from cgw_hooks.host.state.key_index import KeyIndex

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.record import Record
    from cgw_hooks.host.nft import Nft
    from cgw_hooks.host.state.records import Records


class FirewallExceptions:
    """The exceptions of this node, by bridge. Hold the node's lock."""

    def __init__(self, directory: str, nft: Nft) -> None:
        self._users = KeyIndex(directory, "bridges")
        self._firewall = Firewall(nft.read, nft.apply)

    def open(self, records: Iterable[Record]) -> None:
        """Make those that these guests need."""
        needed = set()
        for record in records:
            for bridge in record.guest.network_bridges if record.translated else ():
                self._users.add(bridge, record.guest.key)
                needed.add(bridge)
        for bridge in sorted(needed):
            self._firewall.admit(bridge)

    def close(self, record: Record) -> None:
        """Take those away that this guest was the last to need."""
        for bridge in record.guest.network_bridges:
            self._let_go(bridge, record.guest.key)

    def close_unused(self, records: Records) -> None:
        """Take those away that no guest's record confirms."""
        for bridge in self._users.groups():
            for key in self._users.keys(bridge):
                record = records.find(key)
                if not (record and record.translated and bridge in record.guest.network_bridges):
                    self._let_go(bridge, key)

    def close_all(self) -> None:
        """Take all away, whoever needs them."""
        for bridge in self._users.groups():
            self._firewall.dismiss(bridge)

    def _let_go(self, bridge: str, key: str) -> None:
        if self._users.remove(bridge, key):
            self._firewall.dismiss(bridge)

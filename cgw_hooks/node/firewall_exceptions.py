"""Keeps an exception in libvirt's own firewall as long as a guest on the bridge needs one.

Every hook call of a guest that publishes loads this module, so it must import little.
"""

from __future__ import annotations

from functools import cached_property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.record import Record
    from cgw_hooks.host.libvirt_firewall import Firewall, Obstacles
    from cgw_hooks.host.nft import Nft
    from cgw_hooks.host.state.state import State


class FirewallExceptions:
    """The exceptions of this node, by bridge. The caller must hold the node's lock."""

    def __init__(self, state: State, nft: Nft) -> None:
        self._state = state
        self._nft = nft

    @cached_property
    def _firewall(self) -> Firewall:
        from cgw_hooks.host.libvirt_firewall import Firewall  # for libvirt's own networks only

        return Firewall(self._nft.read, self._nft.apply)

    def change(self, old: Record | None, new: Record | None) -> None:
        """Follow the change of a guest's record from ``old`` to ``new``; None means no record."""
        before, after = bridges_of(old), bridges_of(new)
        for bridge in sorted(after):
            self._firewall.admit(bridge)
        for bridge in sorted(before - after):
            if not self._is_used(bridge):
                self._firewall.dismiss(bridge)

    def settle(self, records: Iterable[Record], before: Iterable[Record]) -> None:
        """Make the exceptions match ``records``; ``before`` are the former records."""
        needed = {bridge for record in records for bridge in bridges_of(record)}
        for bridge in sorted(needed):
            self._firewall.admit(bridge)
        for bridge in sorted({b for record in before for b in bridges_of(record)} - needed):
            self._firewall.dismiss(bridge)

    def _is_used(self, bridge: str) -> bool:
        """Whether the record of any guest confirms that it needs the exception."""
        users = self._state.users_of_bridge(bridge)
        return any(bridge in bridges_of(self._state.peek(key)) for key in users)

    def obstacles(self, bridges: Iterable[str]) -> Obstacles:
        """Return to which of the bridges libvirt's firewall lets no published port pass."""
        return self._firewall.obstacles(bridges)


def bridges_of(record: Record | None) -> set[str]:
    """Return the bridges that need an exception for a guest: of libvirt networks, if translated."""
    if record is None or not record.guest.network_bridges or not record.translated:
        return set()
    return set(record.guest.network_bridges)

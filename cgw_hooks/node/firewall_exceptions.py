"""The exceptions in libvirt's own firewall: there as long as a guest on the bridge needs one.

Loaded by every hook call of a guest that publishes: keep it light.
"""

from __future__ import annotations

from cgw_hooks.host.libvirt_firewall import Firewall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.record import Record
    from cgw_hooks.host.nft import Nft
    from cgw_hooks.host.state.state import State


class FirewallExceptions:
    """The exceptions of this node, by bridge. Hold the node's lock."""

    def __init__(self, state: State, nft: Nft) -> None:
        self._state = state
        self._firewall = Firewall(nft.read, nft.apply)

    def change(self, old: Record | None, new: Record | None) -> None:
        """Follow a guest whose record was ``old`` and is ``new``; None: there is none."""
        before, after = bridges_of(old), bridges_of(new)
        for bridge in sorted(after):
            self._firewall.admit(bridge)
        for bridge in sorted(before - after):
            if not self._is_used(bridge):
                self._firewall.dismiss(bridge)

    def settle(self, records: Iterable[Record], before: Iterable[Record]) -> None:
        """Make the exceptions those that these records need, where ``before`` were the records."""
        needed = {bridge for record in records for bridge in bridges_of(record)}
        for bridge in sorted(needed):
            self._firewall.admit(bridge)
        for bridge in sorted({b for record in before for b in bridges_of(record)} - needed):
            self._firewall.dismiss(bridge)

    def _is_used(self, bridge: str) -> bool:
        """Whether a record confirms that its guest needs the exception."""
        users = self._state.users_of_bridge(bridge)
        return any(bridge in bridges_of(self._state.peek(key)) for key in users)

    def not_admitted(self, bridges: Iterable[str]) -> set[str]:
        """Those of these bridges whose exception is missing, or stands behind a reject."""
        return self._firewall.not_admitted(bridges)


def bridges_of(record: Record | None) -> set[str]:
    """The bridges whose exception a guest needs: those of libvirt networks, once translated."""
    return set(record.guest.network_bridges) if record and record.translated else set()

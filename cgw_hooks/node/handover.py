"""Handles an xl guest that migrates from this host to this same host.

During the migration the guest has two keys. The record of the new key supersedes that of the old
one, so the release of the old one withdraws nothing. If the migration fails, the old record gets
the ports back before the new one is withdrawn, so the ports have no pause.
"""

from __future__ import annotations

from cgw_hooks.core.record import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.record import Record
    from cgw_hooks.host.state.state import State as NodeState
    from cgw_hooks.node.publisher import Publisher


def release_device(publisher: Publisher, key: GuestKey) -> Record | None:
    """Release an xl device. If it superseded another one, that one gets the ports back.

    Returns the released record, or None if nothing was withdrawn.
    """
    for guest in _superseded_by(publisher.state, key):
        publisher.publish(guest)
    record = publisher.release(key, connections_end=False)
    return record if record and record.is_current else None


def _superseded_by(state: NodeState, key: GuestKey) -> list[Guest]:
    """Return the superseded guests that get their ports back when this key is released."""
    going = state.peek(key)
    if going is None or not going.is_current:
        return []
    others = (state.peek(other) for other in state.keys_of_uuid(going.guest.uuid) if other != key)
    return [
        other.guest
        for other in others
        if other and other.state is State.SUPERSEDED and other.guest.is_same_device(going.guest)
    ]

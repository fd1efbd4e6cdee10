"""A guest that migrates from this host to itself: for a while it is there twice, under two keys.

The new one supersedes the old one, whose record then has nothing to take away. Where the
migration fails, it is the other way round, and without a pause: the ports are the old one's
again before anything of the new one is withdrawn.
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
    """Release an xl device; where it superseded another, that one goes on with the ports.

    Returns what was released, None where nothing is withdrawn by that.
    """
    for guest in _superseded_by(publisher.state, key):
        publisher.publish(guest)
    record = publisher.release(key, connections_end=False)
    return record if record and record.is_current else None


def _superseded_by(state: NodeState, key: GuestKey) -> list[Guest]:
    """The guests that go on with their ports when the one with this key goes."""
    going = state.peek(key)
    if going is None or not going.is_current:
        return []
    others = (state.peek(other) for other in state.keys_of_uuid(going.guest.uuid) if other != key)
    return [
        other.guest
        for other in others
        if other and other.state is State.SUPERSEDED and other.guest.is_same_device(going.guest)
    ]

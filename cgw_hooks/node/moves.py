"""Guests that have migrated from this node to one that the registry does not name yet.

The destination of a migration writes its entry before the guest stops here. If the registry is
silent at that time, this node cannot see the entry. The guest still answers, on the network that
all nodes share, so its ports stay published: by a record like that of a guest of the registry,
until the registry names the guest's new node (see ``registered``).
"""

from __future__ import annotations

from cgw_hooks.core.guest import REGISTRY, XL, Guest, GuestKey
from cgw_hooks.core.operations import FAILED, MIGRATED
from cgw_hooks.core.record import State
from cgw_hooks.core.shared_ports import shared_ports
from cgw_hooks.node import ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.node.publisher import Publisher


def note(node: Publisher, key: GuestKey, reason: str) -> bool:
    """Note why a guest that is about to be released has stopped; return whether it has moved.

    ``reason`` is the hook's fourth argument. A guest that ends here runs nowhere else, whatever was
    noted before, unless it has only failed to migrate to this node.
    """
    if reason == MIGRATED:
        guest = moving_guest(node, key)
        if guest:
            node.publish_remote(guest, has_moved=True)
        return guest is not None
    if reason != FAILED:
        record = node.state.peek(key)
        moved = node.state.peek(_registry_key(record.guest.uuid)) if record else None
        if moved and moved.has_moved:
            node.forget_remote(moved.key)
    return False


def moving_guest(node: Publisher, key: GuestKey) -> Guest | None:
    """Return the guest as one of the registry; None if the registry says where it runs.

    It is also None if no other node publishes its ports, and if it runs on this node under another
    key: then it has not left.
    """
    record = node.state.peek(key)
    if record is None or record.state not in {State.PUBLISHED, State.STOPPED}:
        return None
    known = node.state.peek(_registry_key(record.guest.uuid))
    others = (node.state.peek(other) for other in node.state.own_keys(record.guest.uuid))
    if (known and not known.has_moved) or any(o and o.key != key and o.translated for o in others):
        return None
    was_open = record._replace(state=State.PUBLISHED)
    lost = ports.lost(node.state, record.guest)
    shared = [port for port in shared_ports([was_open], node.config) if port not in lost]
    if known and key.driver == XL:  # another device of the same guest has moved before
        shared += known.guest.ports
    uuid = record.guest.uuid
    if not uuid or not any(port.target_address for port in shared):
        return None
    return Guest(_registry_key(uuid), record.guest.name, tuple(dict.fromkeys(shared)), uuid)


def _registry_key(uuid: str) -> GuestKey:
    return GuestKey(REGISTRY, uuid)

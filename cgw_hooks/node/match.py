"""Makes this node match one guest: what its definition says at this moment.

A hook of the guest may run at the same time, and libvirt must not be asked under the node's lock.
So this looks, acts, and looks again, until both looks agree.
"""

from __future__ import annotations

import time

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import RecordError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.publisher import Publisher

_ATTEMPTS = 20
_PAUSE = 0.1


class Look(NamedTuple):
    """What a hypervisor says of a guest at one moment."""

    is_running: bool
    #: The guest is being started or migrates to this node: its hooks are still to come.
    is_arriving: bool = False
    #: None if the guest publishes nothing.
    guest: Guest | None = None


def match(
    publisher: Publisher, key: GuestKey, look: Callable[[], Look]
) -> tuple[Look, Record | None]:
    """Publish or release a guest, by the rules of a hook call; return the look and its record.

    A guest that does not run is left to its hooks. Raises ``CgwError``.
    """
    was_published = False
    for _ in range(_ATTEMPTS):
        seen = look()
        was_published |= _act(publisher, key, seen, is_ours=was_published)
        if look() == seen:
            return seen, publisher.state.peek(key)
        time.sleep(_PAUSE)
    raise RecordError(str(key), "the guest kept starting and stopping", "run: cgw sync")


def _act(publisher: Publisher, key: GuestKey, seen: Look, *, is_ours: bool) -> bool:
    """Act as the guest's next hook call would; return whether the guest was published.

    ``is_ours`` means that this call has published the guest. If it has stopped since, perhaps its
    hooks ran before that, and nobody else would withdraw its ports.
    """
    if seen.is_arriving:
        return False
    if seen.is_running and seen.guest:
        publisher.publish(seen.guest)
        return True
    if (seen.is_running or is_ours) and publisher.state.has(key):
        publisher.release(key, connections_end=True)
    return False

"""Takes back ports whose time has passed (``<portForward until="...">``).

No source publishes such a port again. This withdraws it from the node, and removes it from the
guest's annotation. It asks libvirt, so no hook must use it, and nobody must use it while holding
the node's lock.
"""

from __future__ import annotations

import time

from cgw_hooks.core import annotation_edit
from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import CgwError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.publisher import Publisher


def forget_all_expired(publisher: Publisher, records: Iterable[Record]) -> list[Problem]:
    """Remove the expired ports of these guests from their annotations; return what failed."""
    now = time.time()
    problems = []
    for record in records:
        if record.guest.names_expired and not record.guest.is_remote:
            try:
                _forget_expired(publisher, record.guest, now)
            except CgwError as error:
                problems.append(Problem.of(error))
    return problems


def _forget_expired(publisher: Publisher, guest: Guest, now: float) -> None:
    """Remove expired ports from a guest's annotation, everywhere. Raises ``CgwError``.

    The config's entry of a remote guest is not changed.
    """
    from cgw_hooks.node.annotation_store import open_store_of

    with publisher.state.editing():
        store = open_store_of(publisher, guest.key, guest.name)
        if store is None:
            return
        try:
            for place in store.places():
                before = store.read(place)
                if before is not None:
                    after = annotation_edit.remove_expired(guest.name, before, now)
                    if after != before:
                        store.write(place, after)
        finally:
            store.close()
    _forget_limits(publisher, guest.key, now)


def _forget_limits(publisher: Publisher, key: GuestKey, now: float) -> None:
    """Remove from the guest's record what its annotation no longer names."""
    with publisher.state.locked():
        record = publisher.state.peek(key)
        if record and record.guest.names_expired:
            limits = tuple(limit for limit in record.guest.limits if limit[1] > now)
            guest = record.guest._replace(limits=limits)
            publisher.state.write(record._replace(guest=guest), record)

"""What others ask the registry's thread for: hook calls, and ``cgw registry``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cgw_hooks.core.registry_value import guest
from cgw_hooks.errors import CgwError, RegistryError
from cgw_hooks.host.etcd.values import Delete, Put

if TYPE_CHECKING:
    from cgw_hooks.agent.registry.inbox import Ticket
    from cgw_hooks.agent.registry.outbox import Outbox
    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.registry_view import View
    from cgw_hooks.node.registered import Registered


class Claim(NamedTuple):
    """Have the ports of a guest of this node admitted."""

    ticket: Ticket
    key: GuestKey


class Forget(NamedTuple):
    """Delete the entries of a node that will not come back as it was."""

    ticket: Ticket
    node: str


class Save(NamedTuple):
    """Write what is known of the registry to the disk, for ``cgw registry export``."""

    ticket: Ticket


class Import(NamedTuple):
    """Write keys that are not there: those that a person has exported before."""

    ticket: Ticket
    entries: tuple[tuple[str, str], ...]


Request = Claim | Forget | Save | Import


def claim(request: Claim, outbox: Outbox, registered: Registered) -> None:
    """Note a guest whose ports must be admitted; its ticket is answered when they are."""
    uuid = registered.uuid_of(request.key)
    if uuid:
        outbox.add(uuid, request.ticket)
    else:
        request.ticket.finish()


def forget(request: Forget, view: View, outbox: Outbox) -> None:
    """Delete all entries of a node. If it runs, it writes those of its guests again."""
    try:
        uuids = [
            uuid for uuid in view.uuids() for e in view.entries(uuid) if e.node == request.node
        ]
        outbox.write([Delete(view.keys.guest(uuid, request.node)) for uuid in uuids])
    except CgwError as error:
        request.ticket.finish(error)
    else:
        request.ticket.finish(text=str(len(uuids)))


def import_(request: Import, view: View, outbox: Outbox) -> None:
    """Write the entries that are missing, but for this node's own: its records say these."""
    try:
        missing = []
        for key, text in request.entries:
            place = view.keys.guest_of(key)
            if place is None:
                raise RegistryError("registry", f"{key} is no key of a guest")
            guest(place[0], text)
            if place[1] != view.node and place[1] not in {e.node for e in view.entries(place[0])}:
                missing.append(Put(key, text))
        outbox.write(missing)
    except CgwError as error:
        request.ticket.finish(error)
    else:
        request.ticket.finish(text=str(len(missing)))

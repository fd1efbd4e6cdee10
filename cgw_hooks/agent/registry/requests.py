"""What others ask the registry's thread for: hook calls, and ``cgw registry``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cgw_hooks.core import registry_value
from cgw_hooks.core.etcd.values import Delete, Put
from cgw_hooks.errors import CgwError, RegistryError

if TYPE_CHECKING:
    from cgw_hooks.agent.registry.inbox import Ticket
    from cgw_hooks.agent.registry.outbox import Outbox
    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.registry_view import Entry, View
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
        keys = [view.keys.guest(uuid, request.node) for uuid in uuids]
        if request.node in {entry.node for entry in view.addresses()}:
            keys.append(view.keys.addresses + request.node)
        outbox.write(list(map(Delete, keys)))
    except CgwError as error:
        request.ticket.finish(error)
    else:
        request.ticket.finish(text=str(len(uuids)))


def import_(request: Import, view: View, outbox: Outbox) -> None:
    """Write the entries that are missing, but for this node's own: its records say these."""
    try:
        given = [(key, text, *_read(key, text, view)) for key, text in request.entries]
        missing = [
            Put(key, text)
            for key, text, node, entries in given
            if node != view.node and node not in {entry.node for entry in entries}
        ]
        outbox.write(missing)
    except CgwError as error:
        request.ticket.finish(error)
    else:
        request.ticket.finish(text=str(len(missing)))


def _read(key: str, text: str, view: View) -> tuple[str, list[Entry]]:
    """Return the node of a key, and the entries beside it. Raises ``RegistryError``."""
    place, addressed = view.keys.guest_of(key), view.keys.addressed_node(key)
    if place:
        registry_value.guest(place[0], text)
        return place[1], view.entries(place[0])
    if addressed:
        registry_value.addresses(addressed, text)
        return addressed, view.addresses()
    raise RegistryError("registry", f"{key} is no key of a guest or of a node's addresses")

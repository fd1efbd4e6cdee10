"""What others ask the registry's thread for: hook calls, and ``cgw registry``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cgw_hooks.core import registry_value
from cgw_hooks.core.etcd.values import Delete, Put
from cgw_hooks.errors import CgwError, RegistryError, quoted
from cgw_hooks.node import taken_addresses

if TYPE_CHECKING:
    from cgw_hooks.agent.registry.inbox import Ticket
    from cgw_hooks.agent.registry.outbox import Outbox
    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.registry_view import Entry, View
    from cgw_hooks.host.state.state import State
    from cgw_hooks.node.registered import Registered


class Claim(NamedTuple):
    """Have the ports of a guest of this node admitted."""

    ticket: Ticket
    key: GuestKey


class Forget(NamedTuple):
    """Delete the entries of a node's guests; ``is_for_good``: those of its addresses, too."""

    ticket: Ticket
    node: str
    is_for_good: bool = False


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


def forget(request: Forget, view: View, outbox: Outbox, registered: Registered) -> None:
    """Delete entries of a node. If it runs, it writes them again.

    Its addresses stay, unless it is gone for good: a node that takes these over must know them, and
    all others must know by whom the connections that go on have come in.
    """
    node = request.node
    try:
        if request.is_for_good:
            _refuse_if_stood_in_for(node, view, registered.publisher.state)
        uuids = view.uuids_of(node)
        keys = [view.keys.guest(uuid, node) for uuid in uuids]
        text = f"{len(uuids)} guests forgotten"
        if node in {entry.node for entry in view.addresses()}:
            if request.is_for_good:
                keys.append(view.keys.addresses + node)
            else:
                text += "; its addresses stay known, unless you add --for-good"
        outbox.write(list(map(Delete, keys)))
    except CgwError as error:
        request.ticket.finish(error)
    else:
        request.ticket.finish(text=text)


def _refuse_if_stood_in_for(node: str, view: View, state: State) -> None:
    who = f"node {quoted(node)}"
    if node in taken_addresses.by_node(state.gateway_changes()):
        raise RegistryError(who, "this node stands in for it", f"run: cgw node handback {node}")
    for name, found in view.nodes.items():
        if name != view.node and node in found.stands_in_for:
            cure = f"run on {name}: cgw node handback {node}"
            raise RegistryError(who, f"node {quoted(name)} stands in for it", cure)


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

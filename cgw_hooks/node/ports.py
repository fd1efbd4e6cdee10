"""Finds the owners of the listening ports that a guest asks for, in this node's records.

Every hook call of a guest that publishes loads this module, so it must import little.
"""

from __future__ import annotations

from cgw_hooks.core.guest import REMOTE, GuestKey
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.ownership import Listeners, are_rivals
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import State
from cgw_hooks.errors import PortConflict, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import Claim
    from cgw_hooks.core.record import Record
    from cgw_hooks.host.state.state import State as NodeState


class Relatives(NamedTuple):
    """The records of the same guest under other keys."""

    #: The remote guests that are the same guest.
    remotes: list[Record]
    #: The same xl device, before or after a migration to this same host.
    twins: list[Record]


def refuse_conflict(state: NodeState, guest: Guest) -> Relatives:
    """Raise ``PortConflict`` if another guest owns one of a guest's ports.

    Returns the guest's records under other keys.
    """
    records: dict[GuestKey, Record | None] = {}
    order = {claim: number for number, claim in enumerate(guest.claims)}
    # A folder lists its files in any order; the same conflict must read the same each time.
    for key, held, claim in sorted(state.holders(guest.claims), key=lambda found: order[found[2]]):
        if key == guest.key:
            continue
        if key not in records:
            records[key] = state.peek(key)
        _refuse_holder(guest, claim, held, records[key])
    for key in (GuestKey(REMOTE, guest.name), *state.keys_of_uuid(guest.uuid)):
        if key not in records and key != guest.key:
            records[key] = state.peek(key)
    others = [record for record in records.values() if record]
    return Relatives(
        [other for other in others if guest.is_same_guest(other.guest)],
        [other for other in others if guest.is_same_device(other.guest)],
    )


def keys_of(records: Iterable[Record]) -> tuple[GuestKey, ...]:
    """Return the keys of records, sorted."""
    return tuple(sorted(record.key for record in records))


def refuse_taken(guest: Guest, found: Listeners) -> None:
    """Raise ``PortConflict`` if a listener of the node uses one of a guest's ports."""
    taken = found.first_taken(guest)
    if taken:
        raise taken_by_node(guest, taken)


def node_listeners(guests: Iterable[Guest]) -> Listeners:
    """Return the node's listeners of the protocols that these guests publish."""
    protocols = {port.protocol for guest in guests for port in guest.ports}
    if not protocols:
        return Listeners(())
    from cgw_hooks.host import listeners  # not for a guest that stops

    return Listeners(listeners.listening(protocols))


def taken_by_node(guest: Guest, taken: Claim) -> PortConflict:
    """Return the error of a guest whose port a listener of the node uses."""
    return PortConflict(
        guest.title,
        f"port {taken} is in use by a process of this node",
        f"publish another, or stop that process (see: ss -lnp sport = :{taken.start})",
    )


def taken_by_guest(guest: Guest, claim: Claim, holder: Guest) -> PortConflict:
    """Return the error of a guest whose port another guest owns."""
    where = f" of another node ({holder.title})" if holder.is_remote else ""
    return PortConflict(
        guest.title,
        f"port {claim} is published by guest {quoted(holder.name)}{where}",
        "publish another, or stop that guest first",
    )


def withhold(record: Record, found: Listeners) -> Record:
    """Return the record with the ports withheld that a listener of the node uses.

    Its problem names the first such port. A port whose listener has gone is no longer withheld.
    A guest that is not published has no withheld ports.
    """
    if record.withheld:
        record = record._replace(withheld=(), problem=None)
    taken = {port: claim for port in record.guest.ports if (claim := found.taken(port.claim))}
    if not taken or record.state is not State.PUBLISHED:
        return record
    problem = Problem.of(taken_by_node(record.guest, next(iter(taken.values()))))
    return record._replace(withheld=tuple(taken), problem=problem)


def _refuse_holder(guest: Guest, claim: Claim, held: Claim, record: Record | None) -> None:
    if record is None:
        return  # no record confirms the claim: a crash has left it
    if held in record.guest.claims and are_rivals(guest, record.guest):
        raise taken_by_guest(guest, claim.common_with(held), record.guest)

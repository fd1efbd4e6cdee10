"""Finds the owners of the listening ports that a guest asks for, in this node's records.

Every hook call of a guest that publishes loads this module, so it must import little.
"""

from __future__ import annotations

from cgw_hooks.core.guest import REGISTRY, REMOTE, GuestKey
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.ownership import Listeners, are_rivals
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import State
from cgw_hooks.errors import PortConflict, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import Claim, PublishedPort
    from cgw_hooks.core.record import Record
    from cgw_hooks.errors import RecordError
    from cgw_hooks.host.state.state import State as NodeState

    #: Port -> the guest of another node that owns it, and the ports that they have in common.
    Lost = dict[PublishedPort, tuple[Guest, Claim]]


#: No lost ports.
NOTHING: Lost = {}


class Relatives(NamedTuple):
    """The records of the same guest under other keys."""

    #: The remote guests that are the same guest.
    remotes: list[Record]
    #: The same xl device, before or after a migration to this same host.
    twins: list[Record]


class Change(NamedTuple):
    """The result of a change: the guest's record and the ports without elements now."""

    record: Record
    gone: list[PublishedPort]
    #: The error if a stopped guest's record could not be written, although its ports are closed.
    unwritten: RecordError | None


def refuse_conflict(state: NodeState, guest: Guest) -> Relatives:
    """Raise ``PortConflict`` if another guest owns one of a guest's ports.

    Returns the guest's records under other keys. The guests that the registry names are no reason:
    only the registry itself can tell whether they still own a port (see ``lost``).
    """
    records: dict[GuestKey, Record | None] = {}
    order = {claim: number for number, claim in enumerate(guest.claims)}
    # A folder lists its files in any order; the same conflict must read the same each time.
    for key, held, claim in sorted(state.holders(guest.claims), key=lambda found: order[found[2]]):
        if key == guest.key or REGISTRY in {key.driver, guest.key.driver}:
            continue
        if key not in records:
            records[key] = state.peek(key)
        _refuse_holder(guest, claim, held, records[key])
    twins = [GuestKey(REGISTRY, guest.uuid)] if guest.uuid else []
    for key in (GuestKey(REMOTE, guest.name), *twins, *state.keys_of_uuid(guest.uuid)):
        if key not in records and key != guest.key:
            records[key] = state.peek(key)
    others = [record for record in records.values() if record]
    return Relatives(
        [other for other in others if guest.is_same_guest(other.guest)],
        [other for other in others if guest.is_same_device(other.guest)],
    )


def lost(state: NodeState, guest: Guest) -> Lost:
    """Return the ports of a guest that a guest of another node owns, as the registry says."""
    found: Lost = {}
    if guest.key.driver == REGISTRY:
        return found
    by_claim = {port.claim: port for port in guest.ports}
    order = {claim: number for number, claim in enumerate(by_claim)}
    for key, held, claim in sorted(state.holders(guest.claims), key=lambda one: order[one[2]]):
        if key.driver != REGISTRY or by_claim[claim] in found:
            continue
        record = state.peek(key)
        if record and held in record.guest.claims and are_rivals(guest, record.guest):
            found[by_claim[claim]] = record.guest, claim.common_with(held)
    return found


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
    where = f" of another node ({holder.title})" if holder.key.driver == REMOTE else ""
    where = (
        " of another node (see: cgw status --cluster)" if holder.key.driver == REGISTRY else where
    )
    return PortConflict(
        guest.title,
        f"port {claim} is published by guest {quoted(holder.name)}{where}",
        "publish another, or stop that guest first",
    )


def withhold(record: Record, found: Listeners, lost_ports: Lost = NOTHING) -> Record:
    """Return the record with the ports withheld that another owner has.

    ``found`` are the listeners of the node, ``lost_ports`` what ``lost`` returns. The record's
    problem names the first such port. A port that no other owner has any more is no longer
    withheld. A guest that is not published has no withheld ports.
    """
    if record.withheld:
        record = record._replace(withheld=(), problem=None)
    if record.state is not State.PUBLISHED:
        return record
    errors = {
        port: taken_by_node(record.guest, claim)
        for port in record.guest.ports
        if (claim := found.taken(port.claim))
    } | {port: taken_by_guest(record.guest, claim, by) for port, (by, claim) in lost_ports.items()}
    if not errors:
        return record
    withheld = tuple(port for port in record.guest.ports if port in errors)
    return record._replace(withheld=withheld, problem=Problem.of(errors[withheld[0]]))


def _refuse_holder(guest: Guest, claim: Claim, held: Claim, record: Record | None) -> None:
    if record is None:
        return  # no record confirms the claim: a crash has left it
    if held in record.guest.claims and are_rivals(guest, record.guest):
        raise taken_by_guest(guest, claim.common_with(held), record.guest)

"""Makes single guests match what their definition, leases and neighbour table say now.

This is what the agent does after news about one guest. A hook may change the same guest at any
moment, so a change is made only if the guest's record is still the one that it was decided from.
Then everything is looked at again: never the definition alone, which may be the older one.
"""

from __future__ import annotations

import copy
import time

from cgw_hooks.core.guest import Guest
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.policy import refuse_unpublishable
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import Record, State, last_published
from cgw_hooks.errors import CgwError, InvalidAnnotation, PortConflict, RecordError
from cgw_hooks.host import neighbours, routes
from cgw_hooks.host.state.state import State as NodeState
from cgw_hooks.sources.found_addresses import Look, aimed_at, known_addresses
from cgw_hooks.sources.libvirt import read_definition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.published_port import Address
    from cgw_hooks.host.libvirt_api import Definition
    from cgw_hooks.node.publisher import Publisher

_ATTEMPTS = 20
_PAUSE = 0.05


class Refreshed(NamedTuple):
    """What was changed for one guest; at most one of these is not None."""

    published: Record | None = None
    #: The record before its ports were withdrawn.
    withdrawn: Record | None = None
    #: Why the guest is not published as its definition says.
    problem: Problem | None = None

    def __bool__(self) -> bool:
        """Whether anything was changed."""
        return self != Refreshed()


class Followed(NamedTuple):
    """What was changed because guests have other addresses."""

    published: list[Record]
    problems: list[Problem]
    #: Guests that now have addresses of other IP families: only ``refresh`` knows their ports.
    to_refresh: list[GuestKey]


def refresh(publisher: Publisher, key: GuestKey, ask: Callable[[], Definition | None]) -> Refreshed:
    """Make one guest's record and rules match its present definition.

    ``ask`` returns the definition of the running guest, None if it does not run; it is called
    after the record is read, without the lock, and again if the record has changed since. If
    nothing differs, nothing is written, and no lock is taken. Raises ``CgwError``, also that of
    ``ask``.
    """
    for _ in range(_ATTEMPTS):
        record = publisher.state.peek(key)
        definition = ask()
        try:
            return _refresh(_while_unchanged(publisher, key, record), key, definition, record)
        except _RecordChanged:
            time.sleep(_PAUSE)
    raise _busy(publisher)


def follow_addresses(publisher: Publisher) -> Followed:
    """Publish the guests whose found address is new, has changed or is gone.

    This asks neither libvirt nor reads any definition. Raises ``CgwError``, and ``OSError`` if
    the kernel does not answer.
    """
    records, _ = publisher.state.all()
    look = Look(publisher.config)
    followed = Followed([], [], [])
    for key, record in records.items():
        if record.state is State.PUBLISHED and record.guest.leased and record.guest.ports:
            _follow(publisher, key, record, look, followed)
    return followed


def ask_neighbours(
    publisher: Publisher, key: GuestKey, reported: Mapping[str, Collection[Address]]
) -> None:
    """Let the kernel ask for addresses that a guest's agent has reported.

    ``reported`` are addresses by MAC address. The guest is not trusted: only a neighbour entry
    that comes of this makes ``follow_addresses`` use such an address.
    """
    record = publisher.state.peek(key)
    known = known_addresses(record)
    for interface in record.guest.leased if record else ():
        if interface.network or not interface.bridge:
            continue
        for address in reported.get(interface.mac, ()):
            route = routes.route_to(address)
            is_direct = route and route.kind == "unicast" and not route.gateway
            if route and is_direct and route.device == interface.bridge and address not in known:
                neighbours.ask(address, interface.bridge)


def _refresh(
    publisher: Publisher, key: GuestKey, definition: Definition | None, record: Record | None
) -> Refreshed:
    found = None
    if definition:
        last = last_published(key, record, publisher.state.peek)
        found = read_definition(publisher.config, definition, last)
    if isinstance(found, CgwError):
        return _note(publisher, Guest(key, definition.name if definition else ""), found, record)
    if found is None:
        return _withdraw(publisher, key, record, is_running=definition is not None)
    is_published = record and record.state is State.PUBLISHED and record.guest == found
    if record and is_published and (record.withheld or not record.problem):
        return Refreshed()
    return _publish(publisher, found, record)


def _publish(publisher: Publisher, guest: Guest, record: Record | None) -> Refreshed:
    try:
        return Refreshed(published=publisher.publish(guest))
    except PortConflict as error:
        return _note(publisher, guest, error, record)


def _note(publisher: Publisher, guest: Guest, error: CgwError, record: Record | None) -> Refreshed:
    """Record a problem, which leaves the guest's ports as they were."""
    problem = Problem.of(error)
    if record and record.problem == problem:
        return Refreshed()
    publisher.note_problem(guest, problem)
    return Refreshed(problem=problem)


def _withdraw(
    publisher: Publisher, key: GuestKey, record: Record | None, *, is_running: bool
) -> Refreshed:
    """Release a guest that does not run, or has no annotation any more.

    A reserved or stopped guest is one whose next hook call is still to come, unless it has a
    problem: then it was not published.
    """
    if record is None or not (record.state is State.PUBLISHED or (is_running and record.problem)):
        return Refreshed()
    # It is unknown why a guest does not run: its TCP connections may continue elsewhere.
    return Refreshed(withdrawn=publisher.release(key, connections_end=is_running))


def _follow(
    publisher: Publisher, key: GuestKey, record: Record, look: Look, followed: Followed
) -> None:
    """Follow the addresses of one guest."""
    for _ in range(_ATTEMPTS):
        addresses = look.found_addresses(record.guest.leased, known_addresses(record))
        aimed = aimed_at(record.guest, addresses)
        for address, bridge in look.outdated(record.guest):
            neighbours.ask(address, bridge)
        if aimed.may_lack_ports:
            followed.to_refresh.append(key)
        if aimed.guest == record.guest:
            return
        guarded = _while_unchanged(publisher, key, record)
        try:
            done = _aim(guarded, aimed.guest, record)
        except _RecordChanged:
            now = publisher.state.peek(key)
            if not now or now.state is not State.PUBLISHED or not now.guest.leased:
                return
            record = now
            continue
        followed.published.extend([done.published] if done.published else [])
        followed.problems.extend([done.problem] if done.problem else [])
        return
    raise _busy(publisher)


def _aim(publisher: Publisher, guest: Guest, record: Record) -> Refreshed:
    bridges = {interface.bridge for interface in guest.leased if interface.bridge}
    try:
        refuse_unpublishable(guest, publisher.config, routes.route_to, bridges)
    except InvalidAnnotation as error:
        return _note(publisher, guest, error, record)
    done = _publish(publisher, guest, record)
    if done.published and record.problem and not record.withheld:
        publisher.note_problem(guest, record.problem)  # it is about the definition
    return done


# -- a change of a record that nobody else has changed -----------------------------------------


class _RecordChanged(Exception):
    """A hook has changed the record since it was read."""


def _while_unchanged(publisher: Publisher, key: GuestKey, record: Record | None) -> Publisher:
    """Return a publisher whose next change is made only if the guest's record is this one.

    Otherwise the change raises ``_RecordChanged`` as soon as it has the lock.
    """
    is_checked = False

    def check() -> None:
        nonlocal is_checked
        if not is_checked and publisher.state.peek(key) != record:
            raise _RecordChanged
        is_checked = True

    guarded = copy.copy(publisher)
    guarded.state = NodeState(publisher.state.directory, check)
    return guarded


def _busy(publisher: Publisher) -> RecordError:
    return RecordError(
        publisher.state.directory, "guests kept starting and stopping", "run: cgw sync"
    )

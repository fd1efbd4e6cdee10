"""Makes the node match the guests that run, here and on other nodes, decided as one set.

It restores what a firewall reload, lost records or a killed hook removed, and removes what
belongs to no running guest. If a hypervisor does not answer, its guests' ports stay as their
records say.
"""

from __future__ import annotations

import time

from cgw_hooks.core import ownership
from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.ownership import Candidate
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import Record, State, published, unexpired
from cgw_hooks.errors import CgwError, RecordError
from cgw_hooks.node import ban_keeper, expiry, ports, ruleset
from cgw_hooks.node.plan import (
    Before,
    Plan,
    carry_out,
    change_records,
    compare,
    end_flows,
    ended,
)
from cgw_hooks.node.wanted import HYPERVISORS, add_remotes, ask
from cgw_hooks.sources import static

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.node.plan import Result, Work
    from cgw_hooks.node.publisher import Publisher
    from cgw_hooks.node.wanted import Wanted

_ATTEMPTS = 20
_PAUSE = 0.1


class Report(NamedTuple):
    """What a sync changed, and what it could not do."""

    published: list[Record]
    withdrawn: list[Record]
    #: The name of a guest, and its ports that are no longer translated.
    ended: list[tuple[str, list[PublishedPort]]]
    #: The differences between ruleset and records before, in words.
    repaired: list[str]
    problems: list[Problem]


def sync(
    publisher: Publisher,
    drivers: Collection[str] = HYPERVISORS,
    registered: Mapping[GuestKey, Guest | CgwError] | None = None,
) -> Report:
    """Make records and ruleset match the running guests. Raises ``CgwError``.

    ``drivers`` are the hypervisors to ask, and ``registered`` are the guests that the registry of
    the cluster names. The guests of other drivers, or of the registry if that is None, stay.

    No hypervisor is asked while the lock is held: a hook that waits for it makes libvirt wait. So
    a hook may run between the answer and the change: what it has done stays (see ``plan``).
    """
    state, first = publisher.state, None
    changed: set[GuestKey] = set()
    of_bans = _mend_bans(publisher)
    repaired = dict.fromkeys(of_bans.repaired)
    remotes = list(static.remote_guests(publisher.config))
    seen: dict[bytes, Guest] = {}
    for _ in range(_ATTEMPTS):
        version = state.version()
        before, unreadable = state.all()
        wanted = ask(publisher, before, drivers, seen)
        add_remotes(wanted, publisher, remotes, registered, before)
        if _leave_traces(publisher, wanted, before):
            continue
        first = before if first is None else first
        plan = decide(wanted, before, _listeners(wanted, before))
        work = _compared(publisher, plan, Before(version, before, unreadable))
        result = carry_out(publisher, work)
        end_flows(publisher, result, before)
        changed |= result.changed
        repaired |= dict.fromkeys(result.repaired)
        if not result.undecided:
            asked = [record for key, record in result.records.items() if key.driver in drivers]
            plan.problems.extend(expiry.forget_all_expired(publisher, asked))
            plan.problems.extend(of_bans.problems)
            return _report(result._replace(changed=changed), first, [*repaired], plan.problems)
        time.sleep(_PAUSE)
    raise RecordError(state.directory, "guests kept starting and stopping", "run again: cgw sync")


class _OfBans(NamedTuple):
    repaired: list[str]
    problems: list[Problem]


def _mend_bans(publisher: Publisher) -> _OfBans:
    """Deny again whom a flush has admitted, before a port is opened; an error stops nothing."""
    try:
        return _OfBans(ban_keeper.mend(publisher.nft, publisher.state.directory), [])
    except CgwError as error:
        return _OfBans([], [Problem.of(error)])


def _compared(publisher: Publisher, plan: Plan, before: Before) -> Work:
    """Compute what a plan changes.

    Elements that belong to no record are looked for twice: they may be those of a guest that has
    come and gone since the records were read. For them, the whole ruleset would be written anew.
    """
    work = compare(publisher, plan, before, ruleset.read_tables(publisher.nft, publisher.config))
    if not work.differs.extra:
        return work
    again = compare(publisher, plan, before, ruleset.read_tables(publisher.nft, publisher.config))
    return work._replace(
        differs=work.differs.confirmed_by(again.differs),
        faults=work.faults.confirmed_by(again.faults),
    )


def _leave_traces(publisher: Publisher, wanted: Wanted, before: Collection[GuestKey]) -> bool:
    """Give each local guest a record that has none, still without ports; whether any had none.

    Then the hypervisors must be asked again: a hook of a guest without a record leaves no trace,
    so that this guest may have stopped since they were asked. A guest that has got its record since
    is left to its hooks: it may stop again, and then nothing would tell that it was there.
    """
    state, now = publisher.state, time.time()
    unknown = {
        key: guest
        for key, guest in wanted.guests.items()
        if key not in before and guest.ports and not key.is_remote
    }
    for key in [key for key in unknown if state.has(key)]:
        del unknown[key], wanted.guests[key]

    def reserved(key: GuestKey) -> tuple[Record, None] | None:
        if state.has(key):
            return None
        return Record(unknown[key]._replace(ports=()), State.RESERVED, now), None

    if unknown:
        change_records(state, unknown, reserved)
    return bool(unknown)


def _report(
    result: Result, before: dict[GuestKey, Record], repaired: list[str], problems: list[Problem]
) -> Report:
    """Return what a sync has changed, without what hooks have changed in the meantime."""
    after, others = result.records, result.changed
    return Report(
        [r for key, r in after.items() if key not in others and _is_news(r, before.get(key))],
        [
            r
            for key, r in before.items()
            if key not in after and key not in others and r.guest.ports
        ],
        ended(result, before),
        repaired,
        problems,
    )


def _listeners(wanted: Wanted, before: dict[GuestKey, Record]) -> ownership.Listeners:
    return ports.node_listeners([*wanted.guests.values(), *(r.guest for r in before.values())])


def decide(wanted: Wanted, before: dict[GuestKey, Record], listeners: ownership.Listeners) -> Plan:
    """Decide about all guests at once what the records should be. This does no I/O."""
    now = time.time()
    kept = {
        key: unexpired(record, now)
        for key, record in before.items()
        if key not in wanted.guests and (key in wanted.kept or key.driver in wanted.silent_drivers)
    }
    candidates = [Candidate(guest, before.get(key)) for key, guest in wanted.guests.items()]
    candidates += [Candidate(record.guest, record) for record in kept.values()]
    verdict = ownership.settle(candidates)
    plan = Plan({}, list(wanted.problems), verdict.owners)
    for key, record in kept.items():
        problem = wanted.kept.get(key)
        plan.records[key] = record._replace(problem=problem) if problem else record
    for guest, old in verdict.accepted:
        record = kept[guest.key] if guest.key in kept else published(guest, old, now)
        record = ports.withhold(record, listeners, ownership.lost(record.guest, verdict.registered))
        plan.records[guest.key] = record
        if record.withheld and record.problem:
            plan.problems.append(record.problem)
    for (guest, old), holder, claim, keeps_old in verdict.refused:
        problem = Problem.of(ports.taken_by_guest(guest, claim, holder))
        plan.problems.append(problem)
        if old and keeps_old:
            plan.records[guest.key] = old._replace(problem=problem)
        else:
            nothing = Record(guest._replace(ports=()), State.RESERVED, now, problem)
            plan.records[guest.key] = nothing
    for key, problem in wanted.kept.items():
        if problem and key not in plan.records:
            nothing = Record(_nameless(key, problem), State.RESERVED, now, problem)
            plan.records[key] = nothing
    records = ownership.with_overrides(plan.records)
    # To compare a record with itself later costs nothing.
    same = {key: old for key, old in before.items() if records.get(key) == old}
    return plan._replace(records=records | same)


def _nameless(key: GuestKey, problem: Problem) -> Guest:
    """Return a guest whose definition could not be read."""
    from cgw_hooks.core.guest import Guest

    return Guest(key, key.id if key.is_remote else problem.subject)


def _is_news(record: Record, old: Record | None) -> bool:
    return record.state is State.PUBLISHED and (
        not old or (old.state, old.guest) != (record.state, record.guest)
    )

"""Makes the node match the guests that run, here and on other nodes, decided as one set.

It restores what a firewall reload, lost records or a killed hook removed, and removes what
belongs to no running guest. If a hypervisor does not answer, its guests' ports stay as their
records say.
"""

from __future__ import annotations

import time

from cgw_hooks.core import ownership
from cgw_hooks.core.guest import XL, GuestKey
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.core.ownership import Candidate
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import Record, State, published
from cgw_hooks.errors import CgwError, HypervisorError, RecordError
from cgw_hooks.node import ports, ruleset
from cgw_hooks.node.plan import Before, Plan, carry_out, compare, end_flows, ended
from cgw_hooks.sources import libvirt, static, xl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.node.publisher import Publisher

#: xl must come last: it leaves out the guests that libvirt publishes.
HYPERVISORS = (*DRIVERS, XL)
_ATTEMPTS = 20
_PAUSE = 0.1


class Wanted:
    """The guests that should be published, and the problems of reading them."""

    def __init__(self) -> None:
        self.guests: dict[GuestKey, Guest] = {}
        #: These guests stay published as before, each with its problem, if there is one.
        self.kept: dict[GuestKey, Problem | None] = {}
        self.silent_drivers: set[str] = set()
        self.problems: list[Problem] = []

    def add(self, key: GuestKey, found: Guest | CgwError | None) -> None:
        """Add what a source has found about one guest."""
        if found is None:
            self.kept[key] = None
        elif isinstance(found, CgwError):
            self.kept[key] = Problem.of(found)
            self.problems.append(Problem.of(found))
        else:
            self.guests[key] = found


class Report(NamedTuple):
    """What a sync changed, and what it could not do."""

    published: list[Record]
    withdrawn: list[Record]
    #: The name of a guest, and its ports that are no longer translated.
    ended: list[tuple[str, list[PublishedPort]]]
    #: The differences between ruleset and records before, in words.
    repaired: list[str]
    problems: list[Problem]


def sync(publisher: Publisher, drivers: Collection[str] = HYPERVISORS) -> Report:
    """Make records and ruleset match the running guests. Raises ``CgwError``.

    ``drivers`` are the hypervisors to ask; the guests of other drivers stay as they are.

    While the lock is held, no hypervisor is asked and nothing slow is done: a hook that waits
    for the lock makes libvirt wait. So a hook may run between the answer and the change. Then
    the answer is outdated, and the hypervisors are asked again.
    """
    for _ in range(_ATTEMPTS):
        version = publisher.state.version()
        before, unreadable = publisher.state.all()
        wanted = ask(publisher, before, drivers)
        plan = decide(wanted, before, _listeners(wanted, before))
        found = ruleset.read_tables(publisher.nft, publisher.config)
        work = compare(publisher, plan, before, found)
        if carry_out(publisher, plan, work, Before(version, before, unreadable)):
            break
        time.sleep(_PAUSE)
    else:
        raise RecordError(
            publisher.state.directory, "guests kept starting and stopping", "run again: cgw sync"
        )
    end_flows(publisher, plan, before)
    return Report(
        [r for key, r in plan.records.items() if _is_news(r, before.get(key))],
        [r for key, r in before.items() if key not in plan.records and r.guest.ports],
        ended(plan, before),
        work.repaired,
        plan.problems,
    )


def ask(publisher: Publisher, records: Collection[GuestKey], drivers: Collection[str]) -> Wanted:
    """Return the guests that run here and on other nodes, and what they publish now."""
    wanted = Wanted()
    wanted.silent_drivers = set(HYPERVISORS) - set(drivers)
    silent: dict[str, HypervisorError] = {}
    for driver in drivers:
        try:
            for key, found in _running(publisher, driver, wanted, records):
                wanted.add(key, found)
        except HypervisorError as error:
            silent[driver] = error
            wanted.silent_drivers.add(driver)
    recorded = {key.driver for key in records}
    nobody_answered = len(silent) == len(HYPERVISORS)
    for driver, silence in silent.items():
        # A host has one or two of the drivers: the others need not answer.
        if driver in recorded or (nobody_answered and driver == DRIVERS[0]):
            wanted.problems.append(Problem.of(silence))
    for key, found in static.remote_guests(publisher.config):
        wanted.add(key, found)
    return wanted


def _running(
    publisher: Publisher, driver: str, wanted: Wanted, records: Collection[GuestKey]
) -> Iterable[tuple[GuestKey, Guest | CgwError | None]]:
    if driver != XL:
        return libvirt.running(publisher.config, driver)
    # If libvirt does not answer, the guest's record decides.
    is_silent = "libxl" in wanted.silent_drivers
    known = records if is_silent else {*wanted.guests, *wanted.kept}
    return xl.running(publisher.config, lambda key: key in known)


def _listeners(wanted: Wanted, before: dict[GuestKey, Record]) -> ownership.Listeners:
    return ports.node_listeners([*wanted.guests.values(), *(r.guest for r in before.values())])


def decide(wanted: Wanted, before: dict[GuestKey, Record], listeners: ownership.Listeners) -> Plan:
    """Decide about all guests at once what the records should be. This does no I/O."""
    now = time.time()
    plan = Plan({}, list(wanted.problems))
    kept = {
        key: record
        for key, record in before.items()
        if key not in wanted.guests and (key in wanted.kept or key.driver in wanted.silent_drivers)
    }
    candidates = [Candidate(guest, before.get(key)) for key, guest in wanted.guests.items()]
    candidates += [Candidate(record.guest, record) for record in kept.values()]
    verdict = ownership.settle(candidates)
    for key, record in kept.items():
        problem = wanted.kept.get(key)
        plan.records[key] = record._replace(problem=problem) if problem else record
    for guest, old in verdict.accepted:
        record = kept[guest.key] if guest.key in kept else published(guest, old, now)
        record = ports.withhold(record, listeners)
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
    return _with_overrides(plan)


def _nameless(key: GuestKey, problem: Problem) -> Guest:
    """Return a guest whose definition could not be read."""
    from cgw_hooks.core.guest import Guest

    return Guest(key, key.id if key.is_remote else problem.subject)


def _with_overrides(plan: Plan) -> Plan:
    """Add to each guest's record the remote guests that are the same guest."""
    alike = ownership.overrides(record.guest for record in plan.records.values())
    for key, record in plan.records.items():
        overrides = alike.get(key, ())
        if overrides != record.overrides:
            plan.records[key] = record._replace(overrides=overrides)
    return plan


def _is_news(record: Record, old: Record | None) -> bool:
    return record.state is State.PUBLISHED and (
        not old or (old.state, old.guest) != (record.state, record.guest)
    )

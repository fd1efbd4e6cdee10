"""Makes the node match what runs, here and on other nodes: all guests, decided as one set.

Puts back what a firewall reload, lost records or a killed hook took, and takes
away what no running guest owns. Where a hypervisor does not answer, its guests'
ports stay as the records have them.
"""

from __future__ import annotations

import time

from cgw_hooks.core import ownership
from cgw_hooks.core.guest import XL, GuestKey
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.core.ownership import Candidate
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import Record, State, published, translated
from cgw_hooks.errors import CgwError, HypervisorError, RecordError
from cgw_hooks.node import ports, ruleset
from cgw_hooks.node.publisher import withhold
from cgw_hooks.sources import libvirt, static, xl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.parse.nft_listing import Listing
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.host.state.state import State as NodeState
    from cgw_hooks.node.publisher import Publisher

#: xl last: it leaves libvirt's guests alone.
HYPERVISORS = (*DRIVERS, XL)
_ATTEMPTS = 20
_PAUSE = 0.1
#: Seconds: a person can wait for another cgw a little longer than a hook may.
_LOCK_WAIT = 10.0
#: Seconds that records are written for until the lock is free again, for a moment.
_LONGEST_WRITE = 0.3


class Wanted:
    """The guests that should be published, and which hypervisors did not answer."""

    def __init__(self) -> None:
        self.guests: dict[GuestKey, Guest] = {}
        #: Of these, what was published before stays: each with the problem, if there is one.
        self.kept: dict[GuestKey, Problem | None] = {}
        self.silent_drivers: set[str] = set()
        self.problems: list[Problem] = []

    def add(self, key: GuestKey, found: Guest | CgwError | None) -> None:
        """Add what a source found of one guest."""
        if found is None:
            self.kept[key] = None
        elif isinstance(found, CgwError):
            self.kept[key] = Problem.of(found)
            self.problems.append(Problem.of(found))
        else:
            self.guests[key] = found


class Report(NamedTuple):
    """What a sync changed, and what it could not."""

    published: list[Record]
    withdrawn: list[Record]
    #: What was not in the ruleset as the records say, in words.
    repaired: list[str]
    problems: list[Problem]


class _Plan(NamedTuple):
    """The records that should be, instead of those that are."""

    records: dict[GuestKey, Record]
    problems: list[Problem]


def sync(publisher: Publisher, drivers: Collection[str] = HYPERVISORS) -> Report:
    """Make records and ruleset match the running guests. Raises ``CgwError``.

    ``drivers``: the hypervisors to ask; the guests of others stay as they are.

    Nobody is asked, and nothing slow is done, while the lock is held: a hook that waits for the
    lock makes libvirt wait. So hooks may run in between. Then the answer is old, and the
    question is asked again.
    """
    for _ in range(_ATTEMPTS):
        version = publisher.state.version()
        before, unreadable = publisher.state.all()
        wanted = ask(publisher, before, drivers)
        plan = decide(wanted, before, _listeners(wanted, before))
        found = ruleset.read_tables(publisher.nft, publisher.config)
        work = _compare(publisher, plan, before, found)
        if _carry_out(publisher, plan, before, unreadable, work, version):
            break
        time.sleep(_PAUSE)
    else:
        raise RecordError(
            publisher.state.directory, "guests kept starting and stopping", "run again: cgw sync"
        )
    _end_flows(publisher, plan, before)
    return Report(
        [r for key, r in plan.records.items() if _is_news(r, before.get(key))],
        [r for key, r in before.items() if key not in plan.records and r.guest.ports],
        work.repaired,
        plan.problems,
    )


def ask(publisher: Publisher, records: Collection[GuestKey], drivers: Collection[str]) -> Wanted:
    """Which guests run, here and elsewhere, and what they publish now."""
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
        # A host has one or two of the drivers: that the others are silent is no problem.
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
    # Where libvirt is silent, its record tells.
    is_silent = "libxl" in wanted.silent_drivers
    known = records if is_silent else {*wanted.guests, *wanted.kept}
    return xl.running(publisher.config, lambda key: key in known)


def _listeners(wanted: Wanted, before: dict[GuestKey, Record]) -> ownership.Listeners:
    return ports.node_listeners([*wanted.guests.values(), *(r.guest for r in before.values())])


def decide(wanted: Wanted, before: dict[GuestKey, Record], listeners: ownership.Listeners) -> _Plan:
    """What the records should be: one decision about all guests. Reads and writes nothing."""
    now = time.time()
    plan = _Plan({}, list(wanted.problems))
    kept = {
        key: record
        for key, record in before.items()
        if key not in wanted.guests and (key in wanted.kept or key.driver in wanted.silent_drivers)
    }
    candidates = [Candidate(guest, before.get(key)) for key, guest in wanted.guests.items()]
    candidates += [Candidate(record.guest, record) for record in kept.values() if record.reserves]
    verdict = ownership.settle(candidates)
    for key, record in kept.items():
        problem = wanted.kept.get(key)
        plan.records[key] = record._replace(problem=problem) if problem else record
    for guest, old in verdict.accepted:
        if guest.key not in kept:
            record = withhold(published(guest, old, now), listeners)
            plan.records[guest.key] = record
            if record.problem:
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
    """A guest of which nothing could be read."""
    from cgw_hooks.core.guest import Guest

    return Guest(key, key.id if key.is_remote else problem.subject)


def _with_overrides(plan: _Plan) -> _Plan:
    """Tell each guest's record which remote guests are the same guest."""
    alike = ownership.overrides(record.guest for record in plan.records.values())
    for key, record in plan.records.items():
        overrides = alike.get(key, ())
        if overrides != record.overrides:
            plan.records[key] = record._replace(overrides=overrides)
    return plan


class _Work(NamedTuple):
    """What a plan changes, found out before the lock is taken."""

    #: Records to write, each with the one that it replaces.
    records: list[tuple[Record, Record | None]]
    #: All ports that should have elements, if the ruleset is not yet so.
    ruleset: list[PublishedPort] | None
    #: What was wrong before this sync, beside what the sync itself changes.
    repaired: list[str]


def _compare(
    publisher: Publisher,
    plan: _Plan,
    before: dict[GuestKey, Record],
    found: dict[str, Listing],
) -> _Work:
    records = [
        (record._replace(leaving=_gone(old, record)), old)
        for key, record in plan.records.items()
        if record != (old := before.get(key))
    ]
    was, should_be = translated(list(before.values())), translated(list(plan.records.values()))
    wrong = ruleset.compare(publisher.config, was, found)
    differs = wrong if was == should_be else ruleset.compare(publisher.config, should_be, found)
    return _Work(records, should_be if differs else None, wrong.in_words())


def _carry_out(  # noqa: PLR0913, PLR0917
    publisher: Publisher,
    plan: _Plan,
    before: dict[GuestKey, Record],
    unreadable: Collection[GuestKey],
    work: _Work,
    version: object,
) -> bool:
    """Write the records that differ, then the ruleset if it differs; False: ask again.

    A record that goes, goes last: what a crash leaves says more than the ruleset has. Very many
    records are written in parts, the lock is free in between. ``version``: of the records that
    the plan was made from; where another call has changed one since, nothing more is done.
    """
    state = publisher.state
    waiting = iter(work.records)
    is_written = False
    while not is_written:
        with state.locked(_LOCK_WAIT):
            if state.version() != version:
                return False
            is_written = _write_some(state, waiting)
            if is_written:
                if work.ruleset is not None:
                    publisher.write_ruleset(work.ruleset)
                publisher.firewall.settle(plan.records.values(), before.values())
                for key in {*before, *unreadable} - plan.records.keys():
                    state.remove(key, before.get(key))
                state.rebuild(plan.records.values())
            else:
                version = state.version()
    return True


def _write_some(state: NodeState, waiting: Iterator[tuple[Record, Record | None]]) -> bool:
    """Write records as long as hooks may wait; whether all are written."""
    deadline = time.monotonic() + _LONGEST_WRITE
    for record, old in waiting:
        state.write(record, old)
        if time.monotonic() > deadline:
            return False
    return True


def _gone(old: Record | None, new: Record) -> tuple[PublishedPort, ...]:
    """The ports of a record that the new one does not have."""
    if old is None or (old.translated == new.translated and not old.leaving):
        return ()
    stays = set(new.translated)
    return tuple(port for port in (*old.translated, *old.leaving) if port not in stays)


def _end_flows(publisher: Publisher, plan: _Plan, before: dict[GuestKey, Record]) -> None:
    """Delete the flows of ports that are gone, and of those that clients sent to too early."""
    after = list(plan.records.values())
    if after == list(before.values()):
        return
    stays = set(translated(after))
    ended: list[PublishedPort] = []
    stopped: list[PublishedPort] = []
    for key, old in before.items():
        new = plan.records.get(key)
        gone = [port for port in (*old.translated, *old.leaving) if port not in stays]
        # Why a guest stopped is not known: its TCP connections may go on elsewhere.
        (ended if new else stopped).extend(gone)
    publisher.delete_flows(ended, connections_end=True)
    publisher.delete_flows(stopped, connections_end=False)
    leaving = [record for record in after if _gone(before.get(record.key), record)]
    if leaving:
        with publisher.state.locked(_LOCK_WAIT):
            for record in leaving:
                now = publisher.state.find(record.key)
                if now and now.leaving:
                    publisher.state.write(now._replace(leaving=()), now)
    news = set(translated(after)) - set(translated(list(before.values())))
    publisher.delete_missing_flows(news)


def _is_news(record: Record, old: Record | None) -> bool:
    return record.state is State.PUBLISHED and (
        not old or (old.state, old.guest) != (record.state, record.guest)
    )

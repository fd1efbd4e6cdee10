"""Carries out a plan: makes the records of all guests, and the ruleset, as they should be.

Everything that does not need the node's lock is done without it, since a hook that waits for the
lock makes libvirt wait. So hooks change records while a plan is made and carried out. What a hook
did for its guest is newer than the plan: the guest's record and elements stay as the hook left
them, and the plan is carried out for all other guests.
"""

from __future__ import annotations

import time

from cgw_hooks.core import ownership
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.published_port import no_longer_translated
from cgw_hooks.core.record import Contents, contents, translated
from cgw_hooks.core.rules.elements import elements
from cgw_hooks.host.state.lock import LONG_WAIT
from cgw_hooks.node import ruleset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from cgw_hooks.core.claim_index import ClaimIndex
    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.parse.nft_listing import Listing
    from cgw_hooks.core.problem import Problem
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.record import Record
    from cgw_hooks.core.rules.elements import Elements
    from cgw_hooks.host.state.index import Faults
    from cgw_hooks.host.state.record_files import Version
    from cgw_hooks.host.state.state import State
    from cgw_hooks.node.publisher import Publisher
    from cgw_hooks.node.ruleset import Difference

    Records = dict[GuestKey, Record]

#: Seconds to write records before the lock is released, and seconds until it is taken again: a
#: waiting process tries every 20 ms.
_LONGEST_WRITE, _PAUSE = 0.3, 0.05


class Before(NamedTuple):
    """The records at the time when the plan was made."""

    version: Version
    records: Records
    #: The keys whose records could not be read.
    unreadable: Collection[GuestKey]


class Plan(NamedTuple):
    """The records as they should be."""

    records: Records
    problems: list[Problem]
    #: Who owns which ports by this plan.
    owners: ClaimIndex


class Work(NamedTuple):
    """The changes of a plan, computed before the lock is taken."""

    plan: Plan
    before: Before
    #: The records to write, each with the one that it replaces.
    records: list[tuple[Record, Record | None]]
    #: The differences between the ruleset and the plan.
    differs: Difference
    #: The faults of the ruleset before this sync, not those that the sync itself causes.
    faults: Difference
    index_faults: Faults


class Result(NamedTuple):
    """What was done of a plan."""

    #: The records as they are now.
    records: Records
    #: The keys whose records others have changed since the plan was made.
    changed: set[GuestKey]
    #: The faults of the ruleset that are repaired, in words.
    repaired: list[str]
    #: Guests that the plan gives a port which a hook has given to another guest in the meantime.
    #: They have stayed as they were: their ports must be decided about again.
    undecided: set[GuestKey]


def compare(publisher: Publisher, plan: Plan, before: Before, found: dict[str, Listing]) -> Work:
    """Compute what a plan changes. ``found`` are the tables of cgw as the kernel has them."""
    old_records = before.records
    records = [
        (record._replace(leaving=_gone(old, record)), old)
        for key, record in plan.records.items()
        if record != (old := old_records.get(key))
    ]
    was, should_be = contents([*old_records.values()]), contents([*plan.records.values()])
    wrong = ruleset.compare(publisher.config, was, found)
    differs = wrong if was == should_be else ruleset.compare(publisher.config, should_be, found)
    # An element that no record had is left over only if the plan does not want it either.
    extra = {name: keys & differs.extra.get(name, set()) for name, keys in wrong.extra.items()}
    missing, left_over = publisher.state.index_faults(plan.records.values())
    # The entries of a new record are added with it.
    missing = {path: key for path, key in missing.items() if key in old_records}
    repaired = wrong._replace(extra=extra)
    return Work(plan, before, records, differs, repaired, (missing, left_over))


def carry_out(publisher: Publisher, work: Work) -> Result:
    """Write the records that differ, then the ruleset if it differs.

    Records are removed last, so that after a crash the records name at least all ports in the
    ruleset. Very many records are written in parts, with the lock released in between.
    """
    state = publisher.state
    waiting = iter(work.records)
    version = work.before.version
    undecided: set[GuestKey] = set()
    while True:
        with state.locked(LONG_WAIT):
            changed = state.changes_since(version)
            newer = {key: record for key in changed if (record := state.peek(key))}
            undecided |= _undecided(newer, changed, work)
            if _write_some(state, waiting, changed | undecided, version):
                return _finish(publisher, work, changed, undecided)
        time.sleep(_PAUSE)


def _undecided(newer: Records, changed: set[GuestKey], work: Work) -> set[GuestKey]:
    """Return the guests that the plan gives a port of a record that is newer than the plan."""
    return {
        holder.key
        for record in newer.values()
        for claim in record.guest.claims
        for _, holder in work.plan.owners.overlapping(claim)
        if holder.key not in changed and ownership.are_rivals(record.guest, holder)
    }


def _finish(
    publisher: Publisher, work: Work, changed: set[GuestKey], undecided: set[GuestKey]
) -> Result:
    """Write the ruleset, and remove records. The caller must hold the lock."""
    state, plan, before = publisher.state, work.plan, work.before
    left = changed | undecided
    now = {key: record for key, record in plan.records.items() if key not in left}
    now |= {key: record for key in left if (record := state.peek(key))}
    is_moved = left and _correct_overrides(state, now)
    touched = _elements_of(publisher.config, left, before.records, plan.records, now)
    if is_moved or work.differs.without(touched):
        publisher.write_ruleset(contents([*now.values()]))
    publisher.firewall.settle(now.values(), before.records.values())
    for key in {*before.records, *before.unreadable} - now.keys() - left:
        state.remove(key, before.records.get(key))
    state.mend_index(work.index_faults, but_for=left)
    return Result(now, changed, work.faults.without(touched).in_words(), undecided)


def _correct_overrides(state: State, now: Records) -> bool:
    """Let each guest override the remote guests that are the same guest.

    A hook knew only the remote guests that had a record when it ran. Returns whether a record
    was changed.
    """
    corrected = ownership.with_overrides(now)
    differing = [(record, now[key]) for key, record in corrected.items() if record != now[key]]
    for record, old in differing:
        state.write(record, old)
    now.update(corrected)
    return bool(differing)


def _elements_of(config: NodeConfig, keys: Collection[GuestKey], *views: Records) -> Elements:
    """Return the elements that a hook of these guests may have added or deleted."""
    records = [view[key] for key in keys for view in views if key in view]
    remotes = {remote for record in records for remote in record.overrides}
    records += [view[key] for key in remotes for view in views if key in view]
    each = [Contents.of(record) for record in records]
    touched = Contents([p for c in each for p in c.ports], [p for c in each for p in c.hosted])
    return elements(config, touched)


def _write_some(
    state: State,
    waiting: Iterator[tuple[Record, Record | None]],
    but_for: Collection[GuestKey] = (),
    version: Version | None = None,
) -> bool:
    """Write records for as long as a hook may wait; return whether all are written.

    They become a part of ``version``, so that it differs only by what others have written.
    """
    deadline = time.monotonic() + _LONGEST_WRITE
    for record, old in waiting:
        if record.key not in but_for:
            state.write(record, old)
            if version:
                state.add_to_version(version, record.key)
            if time.monotonic() > deadline:
                return False
    return True


def change_records(
    state: State,
    keys: Iterable[GuestKey],
    change: Callable[[GuestKey], tuple[Record, Record | None] | None],
) -> None:
    """Write the record that ``change`` returns for a key, and the one that it replaces, if any.

    Very many records are written in parts, with the lock released in between.
    """
    found = (changed for key in keys if (changed := change(key)))
    while True:
        with state.locked(LONG_WAIT):
            if _write_some(state, found):
                return
        time.sleep(_PAUSE)


def _gone(old: Record | None, new: Record) -> tuple[PublishedPort, ...]:
    """Return the ports of the old record that the new one does not have."""
    if old is None or (old.translated == new.translated and not old.leaving):
        return ()
    return tuple(no_longer_translated((*old.translated, *old.leaving), new.translated))


def ended(result: Result, before: Records) -> list[tuple[str, list[PublishedPort]]]:
    """Return guest name and ports that are no longer translated, also of published guests."""
    if result.records == before:
        return []
    stays = {port.translation for port in translated(list(result.records.values()))}
    gone = (
        (old.guest.name, [port for port in old.translated if port.translation not in stays])
        for key, old in before.items()
        if key not in result.changed
    )
    return [(name, found) for name, found in gone if found]


def end_flows(publisher: Publisher, result: Result, before: Records) -> None:
    """Delete the flows of withdrawn ports, and flows that began before a port was published.

    Those of guests whose records others have changed are left to these.
    """
    after = list(result.records.values())
    if result.records == before and not any(record.leaving for record in after):
        return
    stays = {port.translation for port in translated(after)}
    ended: list[PublishedPort] = []
    stopped: list[PublishedPort] = []
    for key, old in before.items():
        if key not in result.changed:
            ports = (*old.translated, *old.leaving)
            gone = [port for port in ports if port.translation not in stays]
            # It is unknown why a guest stopped: its TCP connections may continue elsewhere.
            (ended if key in result.records else stopped).extend(gone)
    leaving = [
        key
        for key, record in result.records.items()
        if key not in result.changed and _gone(before.get(key), record)
    ]
    publisher.flows.end(stopped, connections_end=False)
    publisher.flows.end(ended, connections_end=True)
    if leaving:
        change_records(publisher.state, leaving, lambda key: _without_leaving(publisher, key))
    former = {port.translation for port in translated(list(before.values()))}
    publisher.flows.end_older(stays - former)


def _without_leaving(publisher: Publisher, key: GuestKey) -> tuple[Record, Record] | None:
    now = publisher.state.peek(key)
    return (now._replace(leaving=()), now) if now and now.leaving else None

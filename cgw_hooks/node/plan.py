"""Carries out a plan: makes the records of all guests, and the ruleset, as they should be.

Everything that does not need the node's lock is done without it, since a hook that waits for the
lock makes libvirt wait.
"""

from __future__ import annotations

import time

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.record import translated
from cgw_hooks.node import ruleset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.parse.nft_listing import Listing
    from cgw_hooks.core.problem import Problem
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.record import Record
    from cgw_hooks.host.state.state import State
    from cgw_hooks.node.publisher import Publisher

#: Seconds. A person can wait a little longer for another cgw than a hook can.
LOCK_WAIT = 10.0
#: Seconds to write records before the lock is released, and seconds until it is taken again: a
#: waiting process tries every 20 ms.
_LONGEST_WRITE, _PAUSE = 0.3, 0.05


class Before(NamedTuple):
    """The records at the time when the plan was made."""

    #: This value differs after any record was written or removed.
    version: object
    records: dict[GuestKey, Record]
    #: The keys whose records could not be read.
    unreadable: Collection[GuestKey]


class Plan(NamedTuple):
    """The records as they should be."""

    records: dict[GuestKey, Record]
    problems: list[Problem]


class Work(NamedTuple):
    """The changes of a plan, computed before the lock is taken."""

    #: The records to write, each with the one that it replaces.
    records: list[tuple[Record, Record | None]]
    #: All ports that must have elements, if the ruleset must be changed.
    ruleset: list[PublishedPort] | None
    #: The faults of the ruleset before this sync, not those that the sync itself causes.
    repaired: list[str]


def compare(
    publisher: Publisher,
    plan: Plan,
    before: dict[GuestKey, Record],
    found: dict[str, Listing],
) -> Work:
    """Compute what a plan changes. ``found`` are the tables of cgw as the kernel has them."""
    records = [
        (record._replace(leaving=_gone(old, record)), old)
        for key, record in plan.records.items()
        if record != (old := before.get(key))
    ]
    was, should_be = translated(list(before.values())), translated(list(plan.records.values()))
    wrong = ruleset.compare(publisher.config, was, found)
    differs = wrong if was == should_be else ruleset.compare(publisher.config, should_be, found)
    # An element that no record had is left over only if the plan does not want it either.
    extra = {name: keys & differs.extra.get(name, set()) for name, keys in wrong.extra.items()}
    repaired = wrong._replace(extra=extra).in_words()
    return Work(records, should_be if differs else None, repaired)


def carry_out(publisher: Publisher, plan: Plan, work: Work, before: Before) -> bool:
    """Write the records that differ, then the ruleset if it differs.

    Returns False if another call has changed a record since the plan was made: then this stops,
    and the caller must make a new plan. Records are removed last, so that after a crash the
    records name at least all ports in the ruleset. Very many records are written in parts, with
    the lock released in between.
    """
    state = publisher.state
    version, records, unreadable = before
    waiting = iter(work.records)
    is_written = False
    while not is_written:
        with state.locked(LOCK_WAIT):
            if state.version() != version:
                return False
            is_written = _write_some(state, waiting)
            if is_written:
                if work.ruleset is not None:
                    publisher.write_ruleset(work.ruleset)
                publisher.firewall.settle(plan.records.values(), records.values())
                for key in {*records, *unreadable} - plan.records.keys():
                    state.remove(key, records.get(key))
                state.rebuild(plan.records.values())
            else:
                version = state.version()
        if not is_written:
            time.sleep(_PAUSE)
    return True


def _write_some(state: State, waiting: Iterator[tuple[Record, Record | None]]) -> bool:
    """Write records for as long as a hook may wait; return whether all are written."""
    deadline = time.monotonic() + _LONGEST_WRITE
    for record, old in waiting:
        state.write(record, old)
        if time.monotonic() > deadline:
            return False
    return True


def _gone(old: Record | None, new: Record) -> tuple[PublishedPort, ...]:
    """Return the ports of the old record that the new one does not have."""
    if old is None or (old.translated == new.translated and not old.leaving):
        return ()
    stays = set(new.translated)
    return tuple(port for port in (*old.translated, *old.leaving) if port not in stays)


def ended(plan: Plan, before: dict[GuestKey, Record]) -> list[tuple[str, list[PublishedPort]]]:
    """Return guest name and ports that are no longer translated, also of published guests."""
    if plan.records == before:
        return []
    stays = set(translated(list(plan.records.values())))
    gone = (
        (old.guest.name, [port for port in old.translated if port not in stays])
        for old in before.values()
    )
    return [(name, found) for name, found in gone if found]


def end_flows(publisher: Publisher, plan: Plan, before: dict[GuestKey, Record]) -> None:
    """Delete the flows of withdrawn ports, and flows that began before a port was published."""
    after = list(plan.records.values())
    if plan.records == before and not any(record.leaving for record in after):
        return
    stays = set(translated(after))
    ended: list[PublishedPort] = []
    stopped: list[PublishedPort] = []
    for key, old in before.items():
        new = plan.records.get(key)
        gone = [port for port in (*old.translated, *old.leaving) if port not in stays]
        # It is unknown why a guest stopped: its TCP connections may continue on another node.
        (ended if new else stopped).extend(gone)
    publisher.delete_flows(ended, connections_end=True)
    publisher.delete_flows(stopped, connections_end=False)
    leaving = [record for record in after if _gone(before.get(record.key), record)]
    if leaving:
        with publisher.state.locked(LOCK_WAIT):
            for record in leaving:
                now = publisher.state.peek(record.key)
                if now and now.leaving:
                    publisher.state.write(now._replace(leaving=()), now)
    news = set(translated(after)) - set(translated(list(before.values())))
    publisher.delete_missing_flows(news)

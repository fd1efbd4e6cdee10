"""Carries a plan out: what the records of all guests should be, and the ruleset with them.

What can be found out or done without the node's lock is done without it: a hook that waits for
the lock makes libvirt wait.
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

#: Seconds. A person can wait for another cgw a little longer than a hook may.
LOCK_WAIT = 10.0
#: Seconds that records are written for until the lock is free again, and for how long: whoever
#: waits for it looks every 20 ms.
_LONGEST_WRITE, _PAUSE = 0.3, 0.05


class Before(NamedTuple):
    """The records as they were when the plan was made."""

    #: Another value after any of them was written or removed.
    version: object
    records: dict[GuestKey, Record]
    #: Of these nothing could be read.
    unreadable: Collection[GuestKey]


class Plan(NamedTuple):
    """The records that should be, instead of those that are."""

    records: dict[GuestKey, Record]
    problems: list[Problem]


class Work(NamedTuple):
    """What a plan changes, found out before the lock is taken."""

    #: Records to write, each with the one that it replaces.
    records: list[tuple[Record, Record | None]]
    #: All ports that should have elements, if the ruleset is not yet so.
    ruleset: list[PublishedPort] | None
    #: What was wrong before this sync, beside what the sync itself changes.
    repaired: list[str]


def compare(
    publisher: Publisher,
    plan: Plan,
    before: dict[GuestKey, Record],
    found: dict[str, Listing],
) -> Work:
    """Find out what a plan changes, where ``found`` are our tables as they are."""
    records = [
        (record._replace(leaving=_gone(old, record)), old)
        for key, record in plan.records.items()
        if record != (old := before.get(key))
    ]
    was, should_be = translated(list(before.values())), translated(list(plan.records.values()))
    wrong = ruleset.compare(publisher.config, was, found)
    differs = wrong if was == should_be else ruleset.compare(publisher.config, should_be, found)
    # What no record had so far is left over only if the plan does not want it either.
    extra = {name: keys & differs.extra.get(name, set()) for name, keys in wrong.extra.items()}
    repaired = wrong._replace(extra=extra).in_words()
    return Work(records, should_be if differs else None, repaired)


def carry_out(publisher: Publisher, plan: Plan, work: Work, before: Before) -> bool:
    """Write the records that differ, then the ruleset if it differs; False: ask again.

    A record that goes, goes last: what a crash leaves says more than the ruleset has. Very many
    records are written in parts, the lock is free in between. Where another call has changed a
    record since the plan was made, nothing more is done.
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


def ended(plan: Plan, before: dict[GuestKey, Record]) -> list[tuple[str, list[PublishedPort]]]:
    """Which ports are translated no more: also some of a guest that is still published."""
    if plan.records == before:
        return []
    stays = set(translated(list(plan.records.values())))
    gone = (
        (old.guest.name, [port for port in old.translated if port not in stays])
        for old in before.values()
    )
    return [(name, found) for name, found in gone if found]


def end_flows(publisher: Publisher, plan: Plan, before: dict[GuestKey, Record]) -> None:
    """Delete the flows of ports that are gone, and of those that clients sent to too early."""
    after = list(plan.records.values())
    if plan.records == before and not any(record.leaving for record in after):
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
        with publisher.state.locked(LOCK_WAIT):
            for record in leaving:
                now = publisher.state.peek(record.key)
                if now and now.leaving:
                    publisher.state.write(now._replace(leaving=()), now)
    news = set(translated(after)) - set(translated(list(before.values())))
    publisher.delete_missing_flows(news)

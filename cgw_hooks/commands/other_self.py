"""A guest that migrates from this host to itself: for a while it is there twice, under two keys.

The new one takes the ports over; the old one's record then has nothing to take away. Where the
migration fails, it is the other way round.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cgw_hooks.core import ruleset
from cgw_hooks.core.record import State
from cgw_hooks.errors import RecordError, RulesetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.commands.publisher import Publisher
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.record import Record


def is_one(publisher: Publisher, key: str, guest: Guest) -> bool:
    """Whether a key is that of the guest's other self."""
    record = publisher.records.find(key)
    return record is not None and guest.succeeds(record.guest)


def succeed(publisher: Publisher, guest: Guest) -> set[str]:
    """Leave the other self with nothing to take away. Hold the lock.

    Returns the keys of the peers that stood by for it: now they do for the guest.
    """
    publisher.selves.add(guest.lasting_id, guest.key)
    peers: set[str] = set()
    for record in _other_selves(publisher, guest):
        peers.update(record.peers)
        gone = [port for port in record.perhaps_translated if port not in guest.ports]
        succeeded = record._replace(state=State.SUCCEEDED)
        try:
            if gone:
                publisher.nft.apply(ruleset.change(publisher.config, add=[], delete=gone))
            publisher.records.write(succeeded)
        except RulesetError:  # not the table that should be there
            publisher.records.write(succeeded)
            publisher.restore()
    return peers


def hand_back(publisher: Publisher, key: str) -> None:
    """Where a guest goes that took the ports over, its other self goes on with them.

    Without a pause: they are the other self's before anything of this one is withdrawn.
    """
    going = publisher.records.find(key)
    if going and going.guest.lasting_id and going.state is not State.SUCCEEDED:
        for record in _other_selves(publisher, going.guest):
            if record.state is State.SUCCEEDED:
                publisher.publish(record.guest)


def sweep(publisher: Publisher) -> None:
    """Forget the keys without a record, which a crash may have left. Hold the lock."""
    recorded = set(publisher.records.list_keys())
    for lasting_id in publisher.selves.groups():
        for key in set(publisher.selves.keys(lasting_id)) - recorded:
            publisher.selves.remove(lasting_id, key)


def _other_selves(publisher: Publisher, guest: Guest) -> Iterator[Record]:
    for key in publisher.selves.keys(guest.lasting_id):
        with suppress(RecordError):  # cgw status tells
            record = publisher.records.find(key)
            if record and key != guest.key and guest.succeeds(record.guest):
                yield record

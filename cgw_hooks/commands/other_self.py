"""A guest that migrates from this host to itself: for a while it is there twice, under two keys.

The new one takes the ports over; the old one's record then has nothing to take away.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cgw_hooks.core import ruleset
from cgw_hooks.core.record import State
from cgw_hooks.errors import RulesetError

if TYPE_CHECKING:
    from cgw_hooks.commands.publisher import Publisher
    from cgw_hooks.core.guest import Guest


def is_one(publisher: Publisher, key: str, guest: Guest) -> bool:
    """Whether a key is that of the guest's other self."""
    record = publisher.records.find(key)
    return record is not None and guest.succeeds(record.guest)


def succeed(publisher: Publisher, guest: Guest) -> None:
    """Leave the other self with nothing to take away. Hold the lock."""
    for record in publisher.records.all()[0]:
        if guest.succeeds(record.guest) and guest.key != record.guest.key:
            gone = [port for port in record.translated if port not in guest.ports]
            with suppress(RulesetError):  # then the guest's own commit restores the whole
                publisher.nft.apply(ruleset.change(publisher.config, add=[], delete=gone))
            publisher.records.write(record._replace(state=State.SUCCEEDED))


def hand_back(publisher: Publisher, gone: Guest) -> None:
    """Where the migration failed, the guest goes on as it was."""
    for record in publisher.records.all()[0]:
        if record.state is State.SUCCEEDED and gone.succeeds(record.guest):
            publisher.publish(record.guest)

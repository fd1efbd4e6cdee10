"""A guest that migrates from this host to itself: for a while it is there twice, under two keys.

The new one takes the ports over; the old one's record then has nothing to take away. Where the
migration fails, it is the other way round.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cgw_hooks.errors import RecordError
from cgw_hooks.host.state.key_index import KeyIndex

if TYPE_CHECKING:
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.record import Record
    from cgw_hooks.host.state.records import Records


class OtherSelves:
    """Under which keys each such guest is known. To change it, hold the node's lock."""

    def __init__(self, directory: str, records: Records) -> None:
        self._keys = KeyIndex(directory, "selves")
        self._records = records

    def of(self, guest: Guest) -> list[Record]:
        """The guest's records under other keys than its own."""
        found = []
        for key in self._keys.keys(guest.lasting_id) if guest.lasting_id else ():
            with suppress(RecordError):  # cgw status tells
                record = self._records.find(key)
                if record and key != guest.key and guest.succeeds(record.guest):
                    found.append(record)
        return found

    def add(self, guest: Guest) -> None:
        """Write down that a guest is known under its key."""
        if guest.lasting_id:
            self._keys.add(guest.lasting_id, guest.key)

    def remove(self, guest: Guest) -> None:
        """It is so no more."""
        if guest.lasting_id:
            self._keys.remove(guest.lasting_id, guest.key)

    def sweep(self) -> None:
        """Forget the keys without a record, which a crash may have left."""
        recorded = set(self._records.list_keys())
        for lasting_id in self._keys.groups():
            for key in set(self._keys.keys(lasting_id)) - recorded:
                self._keys.remove(lasting_id, key)

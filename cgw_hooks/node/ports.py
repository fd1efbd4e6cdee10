"""Whose each listening port of this node is: who has one already, who takes it, who lets it go.

A port belongs to the first guest that claims it. A claim counts as far as its guest's record
says the same. Loaded by every hook call of a guest that publishes: keep it light.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cgw_hooks.core.guest import PEER
from cgw_hooks.errors import PortConflict, RecordError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import Claim
    from cgw_hooks.core.record import Record
    from cgw_hooks.host.state.claims import Claims
    from cgw_hooks.host.state.records import Records


class PortOwners:
    """The owners of this node's ports. To change them, hold the node's lock."""

    def __init__(self, records: Records, claims: Claims) -> None:
        self._records = records
        self._claims = claims

    def refuse_conflict(self, guest: Guest) -> None:
        """Raise ``PortConflict`` where a guest cannot have one of its ports."""
        conflict = self.conflict(guest)
        if conflict:
            raise PortConflict(conflict)

    def conflict(self, guest: Guest) -> str:
        """Who has one of the guest's ports already, and the cure; empty where all are free."""
        who = f"guest {quoted(guest.name)}"
        for holder, claim in self._holders(guest).items():
            if not self._is_itself(holder, guest):
                return (
                    f"{who}: port {claim} is published by guest {self._name_of(holder)}; "
                    "publish another, or stop that guest first"
                )
        from cgw_hooks.host import listeners  # sockets: where claims are taken only

        taken = listeners.taken_by_node(guest.claims)
        if taken:
            return (
                f"{who}: port {taken} is in use by a process of this node; publish another, "
                f"or stop that process first (see: ss -lnp sport = :{taken.port})"
            )
        return ""

    def find_peers(self, guest: Guest) -> set[str]:
        """The keys of the peers that are this guest, as known from another node."""
        known = {*self._holders(guest), f"{PEER}-{guest.name}"} - {guest.key}
        return {key for key in known if self._is_peer(key, guest)}

    def settle(self, records: Iterable[Record]) -> list[Record]:
        """Take all claims anew, as these records have them; return those that go without."""
        from cgw_hooks.core.ownership import settle  # cgw sync only

        owners, refused = settle(records)
        self._claims.replace(owners)
        return refused

    def take(self, guest: Guest) -> None:
        """Write down what a guest's record says, whoever else wanted it."""
        self._claims.take(guest.key, guest.claims)

    def give_up(self, guest: Guest, *, but: Guest | None = None) -> None:
        """Let a guest's ports go, but for those that another state of it has."""
        kept = set(but.claims) if but else set()
        self._claims.give_up(guest.key, set(guest.claims) - kept)

    def _holders(self, guest: Guest) -> dict[str, Claim]:
        """Who else has ports of the guest, each with the first of them."""
        return self._claims.rivals(guest.key, guest.claims, self._confirms)

    def _confirms(self, key: str, claim: Claim) -> bool:
        """Whether a guest's record has the claim too: a claim alone is what a crash left."""
        try:
            record = self._records.find(key)
        except RecordError:
            return True  # nobody can tell: it stays the guest's
        return record is not None and claim in record.guest.claims

    def _is_itself(self, key: str, guest: Guest) -> bool:
        """Whether a key is another one of the same guest."""
        return self._is_peer(key, guest) or self._is_other_self(key, guest)

    def _is_peer(self, key: str, guest: Guest) -> bool:
        if not (guest.is_peer or key.startswith(f"{PEER}-")):
            return False
        other = self._find(key)
        return other is not None and other.is_same_as(guest)

    def _is_other_self(self, key: str, guest: Guest) -> bool:
        if not guest.lasting_id:
            return False
        other = self._find(key)
        return other is not None and guest.succeeds(other)

    def _find(self, key: str) -> Guest | None:
        with suppress(RecordError):  # cgw status tells
            record = self._records.find(key)
            return record and record.guest
        return None

    def _name_of(self, key: str) -> str:
        guest = self._find(key)
        if guest is None:
            return quoted(key)
        return quoted(guest.name) + (" (of another node)" if guest.is_peer else "")

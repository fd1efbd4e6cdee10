"""Decides who owns each listening port of the node.

The first guest or listener that takes a port owns it. The functions here do no I/O.
"""

from __future__ import annotations

from bisect import bisect_left

from cgw_hooks.core.claim_index import ClaimIndex
from cgw_hooks.core.guest import REGISTRY
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.published_port import are_overlapping
from cgw_hooks.core.record import Record, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.published_port import Address, Claim, PublishedPort


class Listener(NamedTuple):
    """A port that a process of the node listens on; the unspecified address means any local one.

    A socket that serves both IP families counts as two listeners.
    """

    protocol: str
    address: Address
    port: int


def are_rivals(one: Guest, other: Guest) -> bool:
    """Whether two guests must not share ports, since they are neither one guest nor one device."""
    return not (one.is_same_guest(other) or one.is_same_device(other))


class Listeners:
    """The listeners of the node, ordered by port.

    A listener on a loopback address conflicts with no guest: packets to loopback addresses are
    never translated.
    """

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._by_protocol: dict[str, list[tuple[int, Address]]] = {}
        for protocol, address, port in listeners:
            if not address.is_loopback:
                self._by_protocol.setdefault(protocol, []).append((port, address))
        for found in self._by_protocol.values():
            found.sort(key=lambda entry: entry[0])

    def first_taken(self, guest: Guest) -> Claim | None:
        """Return the first port of a guest that a listener of the node uses, or None."""
        return next((taken for port in guest.ports if (taken := self.taken(port.claim))), None)

    def taken(self, claim: Claim) -> Claim | None:
        """Return the first port of a claim that a listener of the node uses, or None."""
        found = self._by_protocol.get(claim.protocol, [])
        for port, address in found[bisect_left(found, claim.start, key=lambda entry: entry[0]) :]:
            if port > claim.end:
                break
            if are_overlapping(address, claim.address):
                return claim._replace(start=port, end=port)
        return None


class Candidate(NamedTuple):
    """A guest that should be published, and its present record."""

    guest: Guest
    old: Record | None = None


class Refusal(NamedTuple):
    """A guest that cannot get its ports: ``holder`` already owns ``claim``."""

    candidate: Candidate
    holder: Guest
    claim: Claim
    #: Whether the guest keeps its present ports, since these conflict with no accepted guest.
    keeps_old: bool


class Verdict(NamedTuple):
    """The result of `settle`."""

    accepted: list[Candidate]
    refused: list[Refusal]
    #: Who owns which ports by this verdict.
    owners: ClaimIndex
    #: Who owns which ports by the registry of the cluster.
    registered: ClaimIndex


def settle(candidates: Iterable[Candidate]) -> Verdict:
    """Decide about all guests of the node as one set.

    If two guests want the same port, the first of these rules that distinguishes them decides: a
    guest whose record already has its ports, a guest of this node before a remote one, the older
    record, the key in alphabetical order. The guests of the registry stand apart: see ``lost``.
    """
    accepted, refused = [], []
    index, registered = ClaimIndex(), ClaimIndex()
    for candidate in sorted(candidates, key=_rank):
        is_registered = candidate.guest.key.driver == REGISTRY
        conflict = _take(candidate.guest, registered if is_registered else index)
        if conflict:
            refused.append((candidate, *conflict))
        else:
            accepted.append(candidate)
    refusals = []
    for candidate, holder, claim in refused:
        old = candidate.old
        keeps_old = old is not None and old.state is State.PUBLISHED and not _take(old.guest, index)
        refusals.append(Refusal(candidate, holder, claim, keeps_old))
    return Verdict(accepted, refusals, index, registered)


def lost(guest: Guest, registered: ClaimIndex) -> dict[PublishedPort, tuple[Guest, Claim]]:
    """Return the ports of a guest that a guest of another node owns, with the owner.

    The registry admits no two guests to one port. So if it names another owner, this guest's claim
    has not been admitted.
    """
    if guest.key.driver == REGISTRY:
        return {}
    return {
        port: (holder, port.claim.common_with(held))
        for port in guest.ports
        for held, holder in registered.overlapping(port.claim)
        if are_rivals(guest, holder)
    }


def _take(guest: Guest, index: ClaimIndex) -> tuple[Guest, Claim] | None:
    """Add a guest's claims; or return the rival that has one of them, and their common ports."""
    claims = guest.claims
    for claim in claims:
        for held, holder in index.overlapping(claim):
            if are_rivals(guest, holder):
                return holder, claim.common_with(held)
    for claim in claims:
        index.add(claim, guest)
    return None


def _rank(candidate: Candidate) -> tuple[bool, bool, float, str]:
    guest, old = candidate
    holds = (
        old is not None
        and old.state is State.PUBLISHED
        and (guest.ports == old.guest.ports or set(guest.claims) <= set(old.guest.claims))
    )
    return not holds, guest.is_remote, old.since if old else float("inf"), str(guest.key)


def overrides(guests: Iterable[Guest]) -> dict[GuestKey, tuple[GuestKey, ...]]:
    """Return the remote guests that each guest of this node overrides: they are the same guest."""
    guests = list(guests)
    by_identity: dict[str, list[Guest]] = {}
    for guest in guests:
        if guest.is_remote:
            for identity in {guest.uuid, guest.name} - {""}:
                by_identity.setdefault(identity, []).append(guest)
    found = {}
    for guest in guests:
        if not guest.is_remote:
            alike = {
                remote.key
                for identity in (guest.uuid, guest.name)
                for remote in by_identity.get(identity, ())
                if guest.is_same_guest(remote)
            }
            if alike:
                found[guest.key] = tuple(sorted(alike))
    return found


def with_overrides(records: dict[GuestKey, Record]) -> dict[GuestKey, Record]:
    """Return the records, each with the remote guests that are the same guest."""
    alike = overrides(record.guest for record in records.values())
    return {
        key: record
        if record.overrides == (same := alike.get(key, ()))
        else record._replace(overrides=same)
        for key, record in records.items()
    }

"""Decides who owns each listening port of the node.

The first guest or listener that takes a port owns it. The functions here do no I/O.
"""

from __future__ import annotations

from bisect import bisect_left

from cgw_hooks.core.claim_index import ClaimIndex
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.published_port import are_overlapping
from cgw_hooks.core.record import Record, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.published_port import Address, Claim


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


def settle(candidates: Iterable[Candidate]) -> Verdict:
    """Decide about all guests of the node as one set.

    If two guests want the same port, the first of these rules that distinguishes them decides: a
    guest whose record already has its ports, a guest of this node before a remote one, the older
    record, the key in alphabetical order.
    """
    accepted, refused = [], []
    index = ClaimIndex()
    for candidate in sorted(candidates, key=_rank):
        conflict = next(_conflicts(candidate.guest, index), None)
        if conflict:
            refused.append((candidate, *conflict))
        else:
            accepted.append(candidate)
            _add(candidate.guest, index)
    refusals = []
    for candidate, holder, claim in refused:
        keeps_old = _may_keep_old(candidate, index)
        refusals.append(Refusal(candidate, holder, claim, keeps_old))
        if keeps_old and candidate.old:
            _add(candidate.old.guest, index)
    return Verdict(accepted, refusals)


def _add(guest: Guest, index: ClaimIndex) -> None:
    for claim in guest.claims:
        index.add(claim, guest)


def _may_keep_old(candidate: Candidate, index: ClaimIndex) -> bool:
    old = candidate.old
    if old is None or old.state is not State.PUBLISHED:
        return False
    return next(_conflicts(old.guest, index), None) is None


def _conflicts(guest: Guest, index: ClaimIndex) -> Iterator[tuple[Guest, Claim]]:
    for claim in guest.claims:
        for held, holder in index.overlapping(claim):
            if are_rivals(guest, holder):
                yield holder, claim.common_with(held)


def _rank(candidate: Candidate) -> tuple[bool, bool, float, str]:
    guest, old = candidate
    holds = (
        old is not None
        and old.state is State.PUBLISHED
        and set(guest.claims) <= set(old.guest.claims)
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

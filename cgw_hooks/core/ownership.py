"""Whose each listening port is, as the records alone say: the claims may be lost, or old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgw_hooks.core.record import Record, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import Claim


def settle(records: Iterable[Record]) -> tuple[dict[Claim, str], list[Record]]:
    """Each claim with its owner's key, and the records that want a port of another guest.

    Of two that want the same, the published one has it, then the one that has been so for
    longer. Guests of this node come before peers: one that is the same guest stands by.
    """
    owners: dict[Claim, str] = {}
    refused = []
    holders: dict[tuple[str, int], list[tuple[Claim, Guest]]] = {}
    for record in sorted(records, key=_rank):
        if record.state is State.SUCCEEDED:
            continue
        guest = record.guest
        claims = [claim for port in guest.ports for claim in port.claims()]
        if any(
            held.overlaps(claim) and _are_rivals(holder, guest)
            for claim in claims
            for held, holder in holders.get((claim.protocol, claim.port), ())
        ):
            refused.append(record)
            continue
        for claim in claims:
            owners.setdefault(claim, guest.key)
            holders.setdefault((claim.protocol, claim.port), []).append((claim, guest))
    return owners, refused


def _rank(record: Record) -> tuple[bool, bool, float]:
    return record.guest.is_peer, record.state is not State.PUBLISHED, record.since


def _are_rivals(one: Guest, other: Guest) -> bool:
    if one.is_peer or other.is_peer:
        return not one.is_same_as(other)
    return not one.succeeds(other)

"""Finds the claims that overlap a given claim without comparing it with all claims.

A claim of at most 64 ports is in the bucket of its first port. A longer claim is in the bucket
``WIDE``; one listening address has at most 1,024 of these. The same buckets are used in memory
and, as folders, under the runtime directory.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import Address, Claim

WIDE = "wide"
_BUCKET_PORTS = 64


def bucket(claim: Claim) -> str:
    """Return the name of the bucket that holds a claim."""
    if claim.end - claim.start >= _BUCKET_PORTS:
        return WIDE
    return str(claim.start // _BUCKET_PORTS)


def bucket_numbers(claim: Claim) -> range:
    """Return the numbers of the buckets, besides ``WIDE``, whose claims may overlap this one."""
    first = max(claim.start - _BUCKET_PORTS + 1, 0)
    return range(first // _BUCKET_PORTS, claim.end // _BUCKET_PORTS + 1)


class ClaimIndex:
    """Claims and their owners, in memory."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, int, str], dict[Address, list[tuple[Claim, Guest]]]] = {}

    def add(self, claim: Claim, owner: Guest) -> None:
        """Add a claim and the guest that owns the claim."""
        by_address = self._buckets.setdefault(
            (claim.protocol, claim.address.version, bucket(claim)), {}
        )
        by_address.setdefault(claim.address, []).append((claim, owner))

    def overlapping(self, claim: Claim) -> Iterator[tuple[Claim, Guest]]:
        """Yield each claim that overlaps this one, with its owner."""
        start, end = claim.start, claim.end
        for name in (WIDE, *map(str, bucket_numbers(claim))):
            by_address = self._buckets.get((claim.protocol, claim.address.version, name))
            if by_address:
                for found in _at(claim.address, by_address):
                    for held, owner in found:
                        # Here only the ports of `Claim.overlaps` are left to compare. A bucket
                        # holds very many claims, so one call for each would take half of a large
                        # sync.
                        if held[2] <= end and start <= held[3]:
                            yield held, owner


def _at(
    address: Address, by_address: dict[Address, list[tuple[Claim, Guest]]]
) -> Iterator[list[tuple[Claim, Guest]]]:
    if address.is_unspecified:
        yield from by_address.values()
        return
    for other in (address, type(address)(0)):
        if other in by_address:
            yield by_address[other]

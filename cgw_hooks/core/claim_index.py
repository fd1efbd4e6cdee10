"""Finds the claims that overlap one, without a look at all of them.

A claim of at most 64 ports lies in the bucket of its first port, a longer one in a bucket
of its own kind, of which a listening address has at most 1,024. The same buckets are
used in memory and, as folders, under the runtime directory.
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
    """The bucket that a claim lies in."""
    if claim.end - claim.start >= _BUCKET_PORTS:
        return WIDE
    return str(claim.start // _BUCKET_PORTS)


def bucket_numbers(claim: Claim) -> range:
    """The buckets, beside ``WIDE``, in which claims may lie that overlap this one."""
    first = max(claim.start - _BUCKET_PORTS + 1, 0)
    return range(first // _BUCKET_PORTS, claim.end // _BUCKET_PORTS + 1)


class ClaimIndex:
    """Claims with their owners, in memory."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, int, str], dict[Address, list[tuple[Claim, Guest]]]] = {}

    def add(self, claim: Claim, owner: Guest) -> None:
        """Add a claim of a guest."""
        by_address = self._buckets.setdefault(
            (claim.protocol, claim.address.version, bucket(claim)), {}
        )
        by_address.setdefault(claim.address, []).append((claim, owner))

    def overlapping(self, claim: Claim) -> Iterator[tuple[Claim, Guest]]:
        """The claims that overlap this one, each with its owner."""
        start, end = claim.start, claim.end
        for name in (WIDE, *map(str, bucket_numbers(claim))):
            by_address = self._buckets.get((claim.protocol, claim.address.version, name))
            if by_address:
                for found in _at(claim.address, by_address):
                    for held, owner in found:
                        # What `Claim.overlaps` asks beside protocol and address: a bucket holds
                        # very many claims, and a call for each would be half of a large sync.
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

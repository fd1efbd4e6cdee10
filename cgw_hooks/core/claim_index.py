"""Finds the claims that overlap a given claim without comparing it with all claims.

Under the runtime directory, the buckets are folders: a claim of at most 64 ports is in the bucket
of its first port, a longer claim is in the bucket ``WIDE``; one listening address has at most
1,024 of these. In memory there are more buckets (see ``ClaimIndex``).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import Claim

    _Bucket = tuple[str, int, int]

WIDE = "wide"
_BUCKET_PORTS = 64
_ANY = 0


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
    """Claims and their owners, in memory.

    A claim of more than ``2 ** (level - 1)`` ports and at most ``2 ** level`` is at this level, in
    the bucket ``first port >> level``. So most claims share their bucket with no other claim.
    """

    def __init__(self) -> None:
        #: Level -> protocol, IP version and number of the bucket -> address as a number -> claims.
        self._levels: dict[int, dict[_Bucket, dict[int, list[tuple[Claim, Guest]]]]] = {}

    def add(self, claim: Claim, owner: Guest) -> None:
        """Add a claim and the guest that owns the claim."""
        protocol, address, start, end = claim
        level = (end - start).bit_length()
        buckets = self._levels.setdefault(level, {})
        by_address = buckets.setdefault((protocol, address.version, start >> level), {})
        by_address.setdefault(int(address), []).append((claim, owner))

    def overlapping(self, claim: Claim) -> Iterator[tuple[Claim, Guest]]:
        """Yield each claim that overlaps this one, with its owner."""
        protocol, address, start, end = claim
        version, number = address.version, int(address)
        for level, buckets in self._levels.items():
            first = max(start - (1 << level) + 1, 0) >> level
            numbers: Sequence[int] = range(first, (end >> level) + 1)
            if len(buckets) < len(numbers):
                kind = (protocol, version)
                numbers = [bucket[2] for bucket in buckets if bucket[:2] == kind]
            for place in numbers:
                by_address = buckets.get((protocol, version, place))
                if by_address:
                    for found in _at(number, by_address):
                        for held, owner in found:
                            # Only the ports of `Claim.overlaps` are left to compare.
                            if held[2] <= end and start <= held[3]:
                                yield held, owner


def _at(
    address: int, by_address: dict[int, list[tuple[Claim, Guest]]]
) -> Iterable[list[tuple[Claim, Guest]]]:
    """Return the claims of an address and of the unspecified one, 0, which stands for any."""
    if address == _ANY:
        return list(by_address.values())
    return [by_address[other] for other in (address, _ANY) if other in by_address]

"""The index of claims finds what overlaps, and nothing else: held against a look at all of them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from cgw_hooks.core.claim_index import WIDE, ClaimIndex, bucket, bucket_numbers
from cgw_hooks.core.published_port import Claim
from tests.unit.builders import guest, random_claims

pytestmark = pytest.mark.unit

HERE, ELSEWHERE, ANY = "192.0.2.1", "192.0.2.2", "0.0.0.0"
HERE6, ANY6 = "2001:db8::1", "::"


def claim(start: int, end: int | None = None, at: str = ANY, protocol: str = "tcp") -> Claim:
    return Claim(protocol, ip_address(at), start, start if end is None else end)


def found(held: Claim, wanted: Claim) -> bool:
    """Whether the index finds a claim that is held by what is wanted, in the holder's name."""
    index, holder = ClaimIndex(), guest(name="holder")
    index.add(held, holder)
    listed = list(index.overlapping(wanted))
    assert listed in ([], [(held, holder)])
    return bool(listed)


@pytest.mark.parametrize(
    ("held", "wanted", "overlap"),
    [
        (claim(80), claim(80), True),
        (claim(80), claim(81), False),
        (claim(80), claim(80, protocol="udp"), False),
        (claim(1, 65535), claim(80), True),
        (claim(80), claim(1, 65535), True),
        (claim(1, 65535), claim(1, 65535), True),
        (claim(1, 79), claim(80, 65535), False),
        (claim(80, at=HERE), claim(80, at=HERE), True),
        (claim(80, at=HERE), claim(80, at=ELSEWHERE), False),
        (claim(80, at=HERE), claim(80), True),
        (claim(80), claim(80, at=HERE), True),
        (claim(1, 65535, at=HERE), claim(80), True),
        (claim(80), claim(1, 65535, at=HERE), True),
        (claim(80, at=HERE), claim(1, 65535, at=ELSEWHERE), False),
        (claim(80), claim(80, at=ANY6), False),
        (claim(80, at=HERE6), claim(80, at=ANY6), True),
        (claim(80, at=HERE6), claim(80), False),
    ],
    ids=str,
)
def test_two_claims(held: Claim, wanted: Claim, overlap: bool) -> None:
    assert overlap is found(held, wanted)


#: Lengths of claims about the border of narrow (64 ports at most) and wide.
LENGTHS = (1, 2, 63, 64, 65, 66, 128)
STARTS = (1, 62, 63, 64, 65, 127, 128, 129, 65408)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("start", STARTS)
def test_at_the_borders_of_the_buckets(start: int, length: int) -> None:
    held = claim(start, start + length - 1)
    for first in (start - 1, start, held.end, held.end + 1):
        for last in (first, first + 63, first + 64):
            if 0 < first and last <= 65535:
                wanted = claim(first, last)
                overlap = first <= held.end and start <= last
                assert overlap is found(held, wanted) is found(wanted, held)


def test_a_claim_of_64_ports_is_narrow_and_one_of_65_is_wide() -> None:
    assert [bucket(claim(64, 127)), bucket(claim(64, 128))] == ["1", WIDE]
    assert [bucket(claim(63)), bucket(claim(127)), bucket(claim(65535))] == ["0", "1", "1023"]


@pytest.mark.parametrize(
    ("length", "most"), [(1, 2), (2, 2), (63, 3), (64, 3), (65, 3), (66, 3), (128, 4)]
)
def test_few_buckets_are_looked_at(length: int, most: int) -> None:
    lengths = {len(bucket_numbers(claim(s, s + length - 1))) for s in range(1, 300)}
    assert max(lengths) == most


@pytest.mark.parametrize("seed", range(10))
def test_random_claims_find_all_that_overlap_them(seed: int) -> None:
    claims = random_claims(seed, 200)
    index = ClaimIndex()
    for number, held in enumerate(claims):
        index.add(held, guest(name=str(number)))
    for wanted in claims[::4] + random_claims(seed + 100, 50):
        listed = [(held, int(owner.name)) for held, owner in index.overlapping(wanted)]
        expected = [(held, n) for n, held in enumerate(claims) if held.overlaps(wanted)]
        assert expected == sorted(listed, key=lambda pair: pair[1])

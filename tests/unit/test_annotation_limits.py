"""What one annotation may ask for: beyond it, one clear line at once, and never a stalled host.

No test here looks at a clock: 30 times 65,535 single ports would not fit into memory.
"""

from __future__ import annotations

from itertools import combinations

import pytest

from cgw_hooks.core.annotation import MAX_ELEMENTS, MAX_RANGES
from cgw_hooks.core.published_port import PublishedPort
from tests.unit.builders import (
    by_map,
    domain,
    forward,
    guest_of,
    interface,
    publish,
    random_claims,
    refusal,
)

pytestmark = pytest.mark.unit

GUEST = "10.5.5.202"
TOO_MANY_RANGES = "ranges of ports, counted by IP family; ask for 1024 at most"
TOO_MANY_ELEMENTS = "one per port that gets another number, and per source network; ask for"


def ranges(*attributes: str) -> str:
    """One ``<portForward>`` of TCP with these ranges."""
    listed = "".join(f"<cgw:range {one}/>" for one in attributes)
    return f'<cgw:portForward proto="tcp">{listed}</cgw:portForward>'


def addresses(count: int) -> list[str]:
    """That many listening addresses."""
    return [f"192.0.{number // 256}.{number % 256}" for number in range(count)]


def asks(inner: str) -> bytes:
    return domain(publish(inner, address=GUEST))


def ports_of(inner: str) -> tuple[PublishedPort, ...]:
    return guest_of(asks(inner)).ports


def test_thousands_of_listening_addresses_are_refused() -> None:
    each = [forward('start="80"', f'proto="tcp" address="{a}"') for a in addresses(3000)]
    line = refusal(asks("".join(each)))
    assert f'guest "web1": <publish> asks for 3000 {TOO_MANY_RANGES}' in line


def test_thirty_times_all_ports_is_thirty_elements() -> None:
    each = [forward('start="1" end="65535"', f'proto="tcp" address="{a}"') for a in addresses(30)]
    ports = ports_of("".join(each))
    assert 30 == len(ports)
    assert [30] == [len(found) for found in by_map(ports).values()]


def test_thirty_times_the_same_ports_is_refused() -> None:
    line = refusal(asks(ranges(*['start="1" end="65535"'] * 30)))
    assert "<range> *:1-65535/tcp and <range> *:1-65535/tcp overlap" in line


def test_as_many_ranges_as_may_be_are_taken_and_one_more_is_not() -> None:
    most = [f'start="{2 * n + 1}"' for n in range(MAX_RANGES)]
    assert MAX_RANGES == len(ports_of(ranges(*most)))
    line = refusal(asks(ranges(*most, 'start="65535"')))
    assert f"<publish> asks for {MAX_RANGES + 1} {TOO_MANY_RANGES}" in line


def test_a_range_counts_once_to_each_address_family() -> None:
    both = interface(GUEST, "fd00::5")
    most = [f'start="{2 * n + 1}"' for n in range(MAX_RANGES // 2)]
    assert MAX_RANGES == len(guest_of(domain(publish(ranges(*most)), both)).ports)
    line = refusal(domain(publish(ranges(*most, 'start="65535"')), both))
    assert f"<publish> asks for {MAX_RANGES + 2} {TOO_MANY_RANGES}" in line


def test_as_many_elements_as_may_be_are_taken_and_one_more_is_not() -> None:
    first, last = 10_000, 10_000 + MAX_ELEMENTS - 1
    (most,) = ports_of(ranges(f'start="{first}" end="{last}" to="20000"'))
    assert [MAX_ELEMENTS] == [len(found) for found in by_map([most]).values()]
    line = refusal(asks(ranges(f'start="{first}" end="{last + 1}" to="20000"')))
    assert (
        f"<publish> needs {MAX_ELEMENTS + 1} elements in the ruleset: {TOO_MANY_ELEMENTS}" in line
    )


def test_elements_count_once_to_each_source_network() -> None:
    count = MAX_ELEMENTS // 8
    # Every second network, so that none are merged.
    sources = " ".join(f"10.{n // 128}.{n % 128 * 2}.0/24" for n in range(count))
    most = [f'start="{1000 * n}" end="{1000 * n + 99}"' for n in range(1, 9)]
    limited = ranges(*most).replace("<cgw:portForward", f'<cgw:portForward source="{sources}"')
    found = by_map(ports_of(limited))
    assert {"ranges4_from": MAX_ELEMENTS} == {name: len(keys) for name, keys in found.items()}
    one_more = limited.replace("</cgw:portForward>", '<cgw:range start="80"/></cgw:portForward>')
    assert f"<publish> needs {MAX_ELEMENTS + count} elements in" in refusal(asks(one_more))


@pytest.mark.parametrize("seed", range(30))
def test_of_random_ranges_an_overlap_is_refused_and_only_that(seed: int) -> None:
    """So few ranges that about half of the annotations have no overlap."""
    claims = [c for c in random_claims(seed, 6, highest=2000) if c.address.version == 4]
    inner = ""
    for c in claims:
        address = "" if c.address.is_unspecified else f' address="{c.address}"'
        inner += forward(f'start="{c.start}" end="{c.end}"', f'proto="{c.protocol}"{address}')
    if any(one.overlaps(other) for one, other in combinations(claims, 2)):
        assert "overlap; publish each listening port once" in refusal(asks(inner))
    else:
        assert claims == [published.claim for published in ports_of(inner)]

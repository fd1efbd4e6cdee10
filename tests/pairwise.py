"""A small set of combinations in which every pair of values occurs (pairwise testing).

Most faults depend on one or two parameters. Of a product of three parameters or more, such a set is
a fraction, and still has each value of each parameter beside each value of every other one.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

Combination = Mapping[str, Hashable]
Pair = tuple[tuple[str, Hashable], tuple[str, Hashable]]


def cover(candidates: Sequence[Combination]) -> list[int]:
    """The places of a few of the candidates that have between them every pair that is in any.

    The same candidates give the same places: each time the one with the most new pairs, the first
    of those that have as many. With fewer than three parameters, that is all of them.
    """
    pairs = [_pairs(candidate) for candidate in candidates]
    left = set().union(*pairs) if pairs else set()
    if not left:  # one parameter, or none
        return list(range(len(candidates)))
    chosen = []
    while left:
        best = max(range(len(pairs)), key=lambda place: len(pairs[place] & left))
        chosen.append(best)
        left -= pairs[best]
    return sorted(chosen)


def _pairs(candidate: Combination) -> set[Pair]:
    return set(combinations(sorted(candidate.items(), key=lambda item: item[0]), 2))

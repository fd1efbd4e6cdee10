"""The short run leaves no pair of parameters out."""

from itertools import combinations, product

import pytest

from tests.full import is_full
from tests.pairwise import cover

pytestmark = pytest.mark.unit


def candidates(*sizes: int) -> list[dict[str, int]]:
    """The whole product of parameters with so many values each."""
    return [{f"p{n}": value for n, value in enumerate(v)} for v in product(*map(range, sizes))]


@pytest.mark.parametrize("sizes", [(46, 2, 3, 2), (3, 3, 3), (2, 2, 2, 2, 2)])
def test_every_pair_is_in_a_fraction_of_the_product(sizes: tuple[int, ...]) -> None:
    whole = candidates(*sizes)
    few = [whole[place] for place in cover(whole)]
    for one, other in combinations(whole[0], 2):
        assert {(c[one], c[other]) for c in whole} == {(c[one], c[other]) for c in few}
    assert len(few) < len(whole) / 2


@pytest.mark.parametrize("sizes", [(5,), (3, 4)])
def test_of_two_parameters_all_combinations_are_left(sizes: tuple[int, ...]) -> None:
    whole = candidates(*sizes)
    assert cover(whole) == list(range(len(whole)))


def test_combinations_that_are_no_candidates_are_not_asked_for() -> None:
    """A table's rows are fewer than the product of its columns."""
    rows = [{"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 2}]
    assert cover(rows) == [0, 1]
    assert cover([{}]) == [0]
    assert cover([]) == []


def test_the_same_candidates_give_the_same_choice() -> None:
    whole = candidates(4, 3, 2)
    assert cover(whole) == cover(list(whole))


three_values = (1, 2, 3)


@pytest.mark.parametrize("one", three_values)
@pytest.mark.parametrize("two", three_values)
@pytest.mark.parametrize("three", three_values)
def test_a_short_run_has_a_fraction_of_the_tests(
    request: pytest.FixtureRequest, one: int, two: int, three: int
) -> None:
    """Counted in this run: what pytest says of parameters is not the same in all versions."""
    name = request.node.originalname
    ours = [item for item in request.session.items if item.name.startswith(name)]
    assert is_full() or len(ours) < 27 / 2, (one, two, three)

"""Our ``Enum`` behaves like that of ``enum``."""

from __future__ import annotations

import copy
import enum
import pickle

import pytest

from cgw_hooks.core import enumeration

pytestmark = pytest.mark.unit


class Ours(enumeration.Enum):
    """Members with a comment between them."""

    #: A comment.
    RED = "red"
    BLUE = "blue"


class Standard(enum.Enum):
    """The same members."""

    RED = "red"
    BLUE = "blue"


def test_a_member_has_a_name_and_a_value() -> None:
    assert [(m.name, m.value) for m in Standard] == [(m.name, m.value) for m in Ours]
    assert isinstance(Ours.RED, Ours)


def test_a_member_is_found_by_its_value_and_there_is_only_one() -> None:
    assert Ours("blue") is Ours.BLUE
    assert pickle.loads(pickle.dumps(Ours.BLUE)) is Ours.BLUE  # noqa: S301
    assert copy.deepcopy(Ours.BLUE) is Ours.BLUE


@pytest.mark.parametrize("wrong", ["green", "RED", None, [], 1])
def test_another_value_is_a_value_error(wrong: object) -> None:
    for kind in (Standard, Ours):
        with pytest.raises(ValueError, match="is not a valid"):
            kind(wrong)

"""Our ``NamedTuple`` is typing's own, but for the time that importing it takes."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing

import pytest

from cgw_hooks.core import named_tuple

pytestmark = pytest.mark.unit


class Ours(named_tuple.NamedTuple):
    """A value."""

    number: int
    words: tuple[str, ...] = ()
    name: str = "none"

    @property
    def doubled(self) -> int:
        return self.number * 2

    @classmethod
    def parse(cls, text: str) -> Ours:
        return cls(int(text))

    def __str__(self) -> str:
        return f"number {self.number}"


class Typings(typing.NamedTuple):
    """A value."""

    number: int
    words: tuple[str, ...] = ()
    name: str = "none"


class Empty(named_tuple.NamedTuple):
    """No field at all."""


def test_fields_defaults_and_document_are_as_typing_has_them() -> None:
    assert Typings._fields == Ours._fields == ("number", "words", "name")
    assert Typings._field_defaults == Ours._field_defaults
    assert Typings.__doc__ == Ours.__doc__
    assert __name__ == Ours.__module__
    assert "Ours" == Ours.__name__
    assert () == Empty() == Empty._fields


def test_a_value_is_a_tuple_with_its_fields_named() -> None:
    value = Ours(1, name="one")
    plain = (1, (), "one")
    assert plain == (value.number, value.words, value.name)
    assert plain == tuple(Typings(1, name="one"))
    assert plain == value
    assert hash(plain) == hash(value)
    assert "Ours(number=1, words=(), name='one')" == repr(value)
    assert isinstance(value, Ours)
    assert isinstance(value, tuple)


def test_methods_are_the_values_own() -> None:
    value = Ours.parse("3")
    assert isinstance(value, Ours)
    assert (6, "number 3") == (value.doubled, str(value))


def test_a_changed_copy_keeps_its_kind_and_the_first_its_content() -> None:
    value = Ours(1)
    changed = value._replace(number=2)
    assert isinstance(changed, Ours)
    assert (1, 4) == (value.number, changed.doubled)
    assert type(copy.copy(value)) is Ours


def test_values_are_ordered_as_tuples() -> None:
    assert [Ours(1), Ours(1, ("a",)), Ours(2)] == sorted([Ours(2), Ours(1, ("a",)), Ours(1)])


def test_a_value_does_not_change() -> None:
    value = Ours(1)
    with pytest.raises(AttributeError):
        value.number = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        value.other = 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", [{}, {"number": 1, "other": 2}])
def test_a_field_that_is_missing_or_unknown_is_an_error(arguments: dict[str, int]) -> None:
    with pytest.raises(TypeError):
        Ours(**arguments)  # type: ignore[arg-type]


def test_what_a_class_says_about_itself_is_as_typing_has_it() -> None:
    assert inspect.signature(Typings).parameters.keys() == inspect.signature(Ours).parameters.keys()
    assert Typings.__match_args__ == Ours.__match_args__
    assert Typings(1)._asdict() == Ours(1)._asdict()
    with pytest.raises(TypeError, match=r"Ours.__new__\(\) missing .* 'number'"):
        Ours()  # type: ignore[call-arg]


def test_a_value_is_made_of_the_right_number_of_values_only() -> None:
    assert Ours(1, ("a",), "b") == Ours._make([1, ("a",), "b"])
    with pytest.raises(TypeError, match="Expected 3 arguments, got 1"):
        Ours._make([1])
    with pytest.raises(ValueError, match="other"):
        Ours(1)._replace(other=2)  # type: ignore[call-arg]


def test_a_value_can_be_sent_to_another_process() -> None:
    sent = pickle.loads(pickle.dumps(Ours(1)))  # noqa: S301
    assert Ours(1) == sent
    assert type(sent) is Ours

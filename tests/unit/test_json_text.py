"""JSON without the module ``json``: the same texts and the same values."""

from __future__ import annotations

import json

import pytest

from cgw_hooks.core import json_text

pytestmark = pytest.mark.unit

VALUES = [
    None, True, False, 0, -7, 65535, 1.5, 1763999999.123, "", "web1",
    'a"b\\c\n\x00\x7f', "\u00e9\u202e", "\ud800", [], {}, [1, [2, [3]]],
    ("a", 1), {"a": None, "b": {"c": [True, "x"]}},
    {"ports": [["tcp", "0.0.0.0", 80, 80, 8080, None, ["10.0.0.0/8"]]] * 3},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_has_the_same_text_as_in_json_and_is_read_again(value: object) -> None:
    text = json_text.dumps(value)
    assert json.dumps(value) == text
    assert json.loads(text) == json_text.loads(text)


@pytest.mark.parametrize("text", [' {"a" : [1 , 2.5e3]}\n', "1E400", '"\\u00e9\\ud83d\\ude00"'])
def test_other_spellings_are_read_as_json_reads_them(text: str) -> None:
    assert json.loads(text) == json_text.loads(text)


@pytest.mark.parametrize(
    "text", ["", "  ", "{", '{"a": 1', "[1,]", "{} {}", "nothing", '"a', '"\t"', "1" * 5000]
)
def test_what_is_not_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        json_text.loads(text)


def test_a_value_without_json_is_refused() -> None:
    with pytest.raises(TypeError):
        json_text.dumps(object())

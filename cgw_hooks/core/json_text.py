"""Values <-> JSON text, as the module ``json`` does it, but without what ``json`` imports.

``json`` loads ``re`` and ``enum``, which takes half as long as the start of the interpreter.
``_json`` is the part of ``json`` that is written in C. An interpreter whose ``_json`` is missing,
or must be called in another way, uses ``json`` itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WHITESPACE = " \t\n\r"


def dumps(value: object) -> str:
    """Return a value as JSON text on one line. Raises ``TypeError`` for values without JSON."""
    try:
        from _json import encode_basestring_ascii, make_encoder

        encode = make_encoder(
            None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True
        )
    except (ImportError, TypeError):
        import json

        return json.dumps(value)
    return "".join(encode(value, 0))


def loads(text: str) -> Any:
    """Read JSON text. Raises ``ValueError`` for anything else."""
    try:
        from _json import make_scanner

        scan = make_scanner(_Decoder)  # type: ignore[arg-type]
    except (ImportError, AttributeError, TypeError):
        import json

        return json.loads(text)
    text = text.strip(_WHITESPACE)
    try:
        value, end = scan(text, 0)
    except StopIteration as error:
        raise ValueError(f"a value is missing at character {error.value}") from None
    except SystemError:  # until json.decoder is loaded, _json has no class for its own error
        import json

        return json.loads(text)
    if end != len(text):
        raise ValueError(f"more text follows at character {end}")
    return value


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} has no JSON")


class _Decoder:
    """What ``_json`` reads from a ``json.JSONDecoder``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float  # NaN and Infinity

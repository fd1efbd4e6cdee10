"""Reads what `cgw status --json` printed, and holds it against its schema each time."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_SCHEMA = Path(__file__).parents[2] / "cgw_hooks/schemas/status.json"


@cache
def validator() -> Draft202012Validator:
    """The schema, itself checked."""
    schema = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def read_status(text: str) -> dict[str, Any]:
    """The object that was printed. Raises `jsonschema.ValidationError`."""
    found: dict[str, Any] = json.loads(text)
    validator().validate(found)
    return found

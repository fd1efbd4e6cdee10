"""JSON for programs, which people can read as well."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def print_json(value: Mapping[str, Any]) -> None:
    """Print an object, one line per entry of its lists; json's ``indent`` would be slow."""
    members = []
    for key, member in value.items():
        text = json.dumps(member)
        if isinstance(member, list) and member:
            text = "[\n    " + ",\n    ".join(map(json.dumps, member)) + "\n  ]"
        members.append(f"  {json.dumps(key)}: {text}")
    sys.stdout.write("{\n" + ",\n".join(members) + "\n}\n")

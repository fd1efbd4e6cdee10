"""The file that says what the agent knows of the cluster's registry."""

from __future__ import annotations

import os

from cgw_hooks.core import json_text
from cgw_hooks.errors import RecordError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read(path: str) -> dict[str, Any]:
    """Return what was written last; empty if nothing, or nothing readable."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json_text.loads(file.read())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: str, status: dict[str, Any]) -> None:
    """Replace the file; empty removes it. Raises ``RecordError``."""
    try:
        if not status:
            if os.path.exists(path):
                os.unlink(path)
            return
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(json_text.dumps(status))
        os.replace(path + ".new", path)
    except OSError as error:
        raise RecordError(
            path, f"it cannot be written: {error.strerror}", "run: cgw sync"
        ) from error

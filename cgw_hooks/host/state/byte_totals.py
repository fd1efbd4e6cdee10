"""The file with the bytes of former connections, by publication (see node/figures.py).

The agent writes it while it counts, and finds it again after its own restart.
"""

from __future__ import annotations

import json
import os

from cgw_hooks.core.connection import Traffic
from cgw_hooks.errors import RecordError
from cgw_hooks.host.state.directory import fault_of, make_safe_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = "bytes.json"


class ByteTotals:
    """The file below the runtime directory ``directory``."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._path = os.path.join(directory, _NAME)

    def read(self) -> dict[str, Traffic] | None:
        """Return publication -> bytes; None if nobody counts, or if it cannot be read."""
        if fault_of(self._directory):
            return None
        try:
            with open(self._path, encoding="utf-8") as file:
                listed = json.load(file)
            return {str(key): Traffic(int(r), int(s)) for key, (r, s) in listed.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, totals: Mapping[str, Traffic]) -> None:
        """Replace the file; a reader sees either the old or the new one. Raises ``RecordError``."""
        try:
            make_safe_directory(self._directory)
            with open(self._path + ".new", "w", encoding="utf-8") as file:
                json.dump(totals, file)
            os.replace(self._path + ".new", self._path)
        except OSError as error:
            raise RecordError(self._path, f"it cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """Remove the file: nobody counts any more. Raises ``OSError``."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return

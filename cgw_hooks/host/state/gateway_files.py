"""The files that say what `cgw node up` has changed, and whether this gateway is out of service."""

from __future__ import annotations

import os

from cgw_hooks.core import json_text
from cgw_hooks.errors import RecordError
from cgw_hooks.host.state.directory import make_safe_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class GatewayFiles:
    """Those below the runtime directory ``directory``."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._changes = os.path.join(directory, "node.json")
        self._down = os.path.join(directory, "node.down")
        self._lost = os.path.join(directory, "node.lost")

    def changes(self) -> dict[str, Any]:
        """Return the recorded changes; may be empty. Raises ``RecordError``."""
        try:
            with open(self._changes, encoding="utf-8") as file:
                found = json_text.loads(file.read())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RecordError(self._changes, f"it cannot be read ({error})", "remove it") from error
        return found if isinstance(found, dict) else {}

    def write(self, changes: dict[str, Any]) -> None:
        """Replace the recorded changes; empty if none is left. Raises ``RecordError``."""
        make_safe_directory(self._directory)
        new = self._changes + ".new"
        try:
            with open(new, "w", encoding="utf-8") as file:
                file.write(json_text.dumps(changes))
            if changes:
                os.replace(new, self._changes)
                return
            for path in (new, self._changes):
                if os.path.exists(path):
                    os.unlink(path)
        except OSError as error:
            raise RecordError(
                self._changes, f"it cannot be written: {error.strerror}", "run: cgw sync"
            ) from error

    def mark(self, *, down: bool) -> None:
        """Remember whether the gateway is out of service. Raises ``RecordError``."""
        make_safe_directory(self._directory)
        try:
            if down:
                os.close(os.open(self._down, os.O_WRONLY | os.O_CREAT, 0o600))
            elif os.path.exists(self._down):
                os.unlink(self._down)
        except OSError as error:
            raise RecordError(
                self._down, f"it cannot be written: {error.strerror}", "run: cgw node up"
            ) from error

    def is_down(self) -> bool:
        """Whether the gateway is out of service."""
        return os.path.exists(self._down)

    def note_lost(self) -> None:
        """Write the file that cgw-resync.path waits for. Raises ``RecordError``."""
        try:
            with open(self._lost, "w", encoding="utf-8") as file:
                file.write("run: cgw node up\n")
        except OSError as error:
            raise RecordError(
                self._directory, f"it cannot be written: {error.strerror}", "run: cgw node up"
            ) from error

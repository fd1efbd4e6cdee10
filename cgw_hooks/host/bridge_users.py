"""Which guests need the firewall's exception for a bridge: an index of the records.

``bridges/virbr0/qemu-<uuid>``, an empty file to a guest. Hold the node's lock.
"""

from __future__ import annotations

import os
from contextlib import suppress

from cgw_hooks.host.runtime_directory import make_safe_directory


class BridgeUsers:
    """The users in ``directory``."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.join(directory, "bridges")

    def add(self, bridge: str, key: str) -> None:
        """A guest needs the bridge."""
        folder = os.path.join(self.directory, bridge)
        make_safe_directory(folder)
        with open(os.path.join(folder, key), "wb"):
            pass

    def remove(self, bridge: str, key: str) -> bool:
        """A guest needs it no more; whether it was the last."""
        folder = os.path.join(self.directory, bridge)
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, key))
        try:
            os.rmdir(folder)
        except OSError:
            return False
        return True

    def bridges(self) -> dict[str, list[str]]:
        """Every bridge that is needed, with who needs it."""
        try:
            bridges = os.listdir(self.directory)
        except FileNotFoundError:
            return {}
        return {b: os.listdir(os.path.join(self.directory, b)) for b in sorted(bridges)}

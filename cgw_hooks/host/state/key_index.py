"""Which guests belong together: an index of the records, kept as empty files.

``bridges/virbr0/qemu-<uuid>``: who needs the firewall's exception for a bridge.
``selves/<uuid>.0/xl-vif1.0``: under which keys one guest is known. To look a group up costs
the same however many there are. A key that its guest's record does not confirm is what a crash
left. Hold the node's lock to change it.
"""

from __future__ import annotations

import os
from contextlib import suppress

from cgw_hooks.host.state.directory import make_safe_directory


class KeyIndex:
    """The index ``name`` in ``directory``: groups of keys."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = os.path.join(directory, name)

    def add(self, group: str, key: str) -> None:
        """A guest belongs to the group."""
        folder = os.path.join(self.directory, group)
        make_safe_directory(folder)
        with open(os.path.join(folder, key), "wb"):
            pass

    def remove(self, group: str, key: str) -> bool:
        """A guest belongs to it no more; whether it was the last."""
        folder = os.path.join(self.directory, group)
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, key))
        try:
            os.rmdir(folder)
        except OSError:
            return False
        return True

    def keys(self, group: str) -> list[str]:
        """Who belongs to a group."""
        try:
            return os.listdir(os.path.join(self.directory, group))
        except FileNotFoundError:
            return []

    def groups(self) -> list[str]:
        """Every group that somebody belongs to."""
        try:
            return sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []

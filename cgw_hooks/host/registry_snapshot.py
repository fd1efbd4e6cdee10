"""The copy of the registry on this node's disk: it serves a reboot while etcd does not answer."""

from __future__ import annotations

import json
import os

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.registry_view import Change

_VERSION = 1
_NAME = "registry-snapshot.json"


class Snapshot(NamedTuple):
    """The keys of all guests at one revision."""

    revision: int
    changes: list[Change]


def write(folder: str, prefix: str, revision: int, changes: Iterable[Change]) -> None:
    """Replace the copy; a reader sees either the old or the new one. Raises ``OSError``."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, _NAME)
    head = {"version": _VERSION, "prefix": prefix, "revision": revision}
    # One line for each key: one text for all would stop the other threads while it is made.
    with open(path + ".new", "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(json.dumps(head) + "\n")
        file.writelines(json.dumps(change) + "\n" for change in changes)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def read(folder: str, prefix: str) -> Snapshot | None:
    """Return the copy; None if there is none for this prefix, or it cannot be read."""
    try:
        with open(os.path.join(folder, _NAME), encoding="utf-8") as file:
            head = json.loads(file.readline())
            if (head["version"], head["prefix"]) != (_VERSION, prefix):
                return None
            changes = [_change(*json.loads(line)) for line in file]
            return Snapshot(int(head["revision"]), changes)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _change(key: str, value: str | None, created: int, modified: int) -> Change:
    return str(key), None if value is None else str(value), int(created), int(modified)

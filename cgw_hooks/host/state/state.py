"""Everything under the runtime directory: records, index, lock, and changes of `cgw node up`.

No other module knows the names of these files.

A reboot deletes the runtime directory, as it deletes the rules.
"""

from __future__ import annotations

import json
import os

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.record import from_json, to_json
from cgw_hooks.errors import RecordError
from cgw_hooks.host.paths import record_file
from cgw_hooks.host.state.directory import make_safe_directory
from cgw_hooks.host.state.index import Index, entries
from cgw_hooks.host.state.lock import WAIT, Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from cgw_hooks.core.published_port import Claim
    from cgw_hooks.core.record import Record

_SUFFIX = ".json"


class State:
    """What this node remembers. A caller that changes it must hold ``locked()``."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._index = Index(directory)
        self._guests = os.path.dirname(record_file(directory, ""))

    def locked(self, wait: float = WAIT) -> Lock:
        """Return the node's lock, for ``with``. Raises ``LockTimeout`` or ``RecordError``.

        ``wait`` is the longest time, in seconds, to wait for one other holder.
        """
        return Lock(self.directory, wait)

    # -- records -----------------------------------------------------------------------------

    def find(self, key: GuestKey) -> Record | None:
        """Return a guest's record, or None. Raises ``RecordError`` if it cannot be read."""
        path = self._file(key)
        try:
            with open(path, encoding="utf-8") as file:
                return from_json(file.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RecordError(
                path, f"the record cannot be read ({error})", "run: cgw sync"
            ) from error

    def peek(self, key: GuestKey) -> Record | None:
        """Return a guest's record; None if there is none or it cannot be read."""
        try:
            return self.find(key)
        except RecordError:
            return None

    def has(self, key: GuestKey) -> bool:
        """Whether there is a record of a guest, even an unreadable one."""
        return os.path.exists(self._file(key))

    def write(self, record: Record, old: Record | None) -> None:
        """Replace the record ``old``; a reader sees either the old or the new one.

        New index entries are added before the record is written, and old ones are removed after.
        So a crash can leave too many entries, but never too few. Raises ``RecordError``.
        """
        path = self._file(record.key)
        before, after = entries(old), entries(record)
        # The lock admits one writer. If it is killed, the next one overwrites this file.
        new = os.path.join(self.directory, "record.new")
        try:
            make_safe_directory(self._guests)
            self._index.add(after - before)
            with open(new, "w", encoding="utf-8") as file:
                file.write(to_json(record))
            os.replace(new, path)
        except OSError as error:
            raise RecordError(
                path, f"it cannot be written: {error.strerror}", "run: cgw sync"
            ) from error
        self._index.remove(before - after)

    def remove(self, key: GuestKey, old: Record | None) -> None:
        """Remove a record, if there is one. Raises ``RecordError``."""
        path = self._file(key)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise RecordError(
                path, f"it cannot be removed: {error.strerror}", "run: cgw sync"
            ) from error
        if old is None:  # a killed call may have left entries that no record tells of
            self.forget_entries(key)
        else:
            self._index.remove(entries(old))

    def forget_entries(self, key: GuestKey) -> None:
        """Remove every index entry of a guest whose record cannot be read.

        This reads the whole index, so the usual hook call must not use it.
        """
        self._index.forget(str(key))

    def all(self) -> tuple[dict[GuestKey, Record], dict[GuestKey, RecordError]]:
        """Return all readable records, and the errors of the others.

        The cost grows with the number of guests, so the usual hook call must not use this.
        """
        records, errors = {}, {}
        for key in self.keys():
            try:
                record = self.find(key)
            except RecordError as error:
                errors[key] = error
            else:
                if record:
                    records[key] = record
        return records, errors

    def keys(self) -> list[GuestKey]:
        """Return the keys of all records, sorted."""
        try:
            names = os.listdir(self._guests)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self._guests, error) from error
        found = sorted(n.removesuffix(_SUFFIX) for n in names if n.endswith(_SUFFIX))
        return [GuestKey.parse(name) for name in found]

    def version(self) -> tuple[int, frozenset[tuple[str, int, int]]]:
        """Return a value that differs after any record was written or removed."""
        try:
            # The folder's own time changes if a record was added and removed in between. That
            # time has steps of 4 ms (CONFIG_HZ=250). Within one step, a record that was written
            # again is a new file.
            changed = os.stat(self._guests).st_mtime_ns
            with os.scandir(self._guests) as found:
                return changed, frozenset((f.name, f.inode(), f.stat().st_mtime_ns) for f in found)
        except FileNotFoundError:  # there is no folder, or a record was removed at this moment
            return 0, frozenset()
        except OSError as error:
            raise _unreadable(self._guests, error) from error

    # -- the index ---------------------------------------------------------------------------

    def holders(self, claims: Iterable[Claim]) -> Iterator[tuple[GuestKey, Claim, Claim]]:
        """Yield key, claim and own claim for each overlap; the key's record must confirm it."""
        return self._index.holders(claims)

    def users_of_bridge(self, bridge: str) -> list[GuestKey]:
        """Return the keys of the guests that may need the firewall exception for a bridge."""
        return self._index.keys(f"bridges/{bridge}")

    def keys_of_uuid(self, uuid: str) -> list[GuestKey]:
        """Return the other keys that a guest with this uuid may have."""
        return self._index.keys(f"uuids/{uuid}") if uuid else []

    def rebuild(self, records: Iterable[Record]) -> None:
        """Make the index match these records; write only the differences."""
        make_safe_directory(self._index.directory)
        self._index.replace({path for record in records for path in entries(record)})

    def clear(self) -> None:
        """Remove all records and their index, but not the lock."""
        for folder in (self._guests, self._index.directory):
            for inside, _, names in os.walk(folder, topdown=False):
                for name in names:
                    os.unlink(os.path.join(inside, name))
                os.rmdir(inside)

    # -- changes of `cgw node up` ------------------------------------------------------------

    def gateway_changes(self) -> dict[str, Any]:
        """Return the recorded changes of `cgw node up`; may be empty. Raises ``RecordError``."""
        try:
            with open(self._node_file, encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RecordError(
                self._node_file, f"it cannot be read ({error})", "remove it"
            ) from error
        return found if isinstance(found, dict) else {}

    def write_gateway_changes(self, changes: dict[str, Any]) -> None:
        """Record the changes that `cgw node up` is about to make; empty if none is left."""
        make_safe_directory(self.directory)
        new = self._node_file + ".new"
        try:
            with open(new, "w", encoding="utf-8") as file:
                json.dump(changes, file)
            if changes:
                os.replace(new, self._node_file)
                return
            for path in (new, self._node_file):
                if os.path.exists(path):
                    os.unlink(path)
        except OSError as error:
            raise RecordError(
                self._node_file, f"it cannot be written: {error.strerror}", "run: cgw sync"
            ) from error

    @property
    def _node_file(self) -> str:
        return os.path.join(self.directory, "node.json")

    def _file(self, key: GuestKey) -> str:
        return record_file(self.directory, str(key))


def _unreadable(folder: str, error: OSError) -> RecordError:
    is_forbidden = isinstance(error, PermissionError)
    cure = "run the command as root" if is_forbidden else "remove it"
    return RecordError(folder, f"it cannot be read: {error.strerror}", cure)

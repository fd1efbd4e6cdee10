"""Everything under the runtime directory: records, index, lock, and what `cgw node up` changed.

Nothing else of cgw knows what the files are called.

Everything here dies with the host, as the rules do.
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
    """What this node remembers. To change it, hold ``locked()``."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._index = Index(directory)
        self._guests = os.path.dirname(record_file(directory, ""))

    def locked(self, wait: float = WAIT) -> Lock:
        """Hold the node's one lock. Raises ``LockTimeout``, or ``RecordError``.

        ``wait``: seconds that one other holder is waited for.
        """
        return Lock(self.directory, wait)

    # -- records -----------------------------------------------------------------------------

    def find(self, key: GuestKey) -> Record | None:
        """The record of a guest. Raises ``RecordError`` where it cannot be read."""
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
        """The record of a guest, where there is one that can be read."""
        try:
            return self.find(key)
        except RecordError:
            return None

    def has(self, key: GuestKey) -> bool:
        """Whether there is a record of a guest, readable or not."""
        return os.path.exists(self._file(key))

    def write(self, record: Record, old: Record | None) -> None:
        """Keep a record in place of ``old``: a reader sees the old one or the new one, whole.

        The index is ahead of the record at every moment: what a crash leaves is too many entries.
        Raises ``RecordError``.
        """
        path = self._file(record.key)
        before, after = entries(old), entries(record)
        # One writer at a time, by the lock: what a killed one leaves here, the next overwrites.
        new = os.path.join(self.directory, "record.new")
        try:
            make_safe_directory(self._guests)
            self._index.add(after - before)
            with open(new, "w", encoding="utf-8") as file:
                file.write(to_json(record))
            os.replace(new, path)
        except OSError as error:
            raise RecordError(path, f"it cannot be written: {error.strerror}", "mend it") from error
        self._index.remove(before - after)

    def remove(self, key: GuestKey, old: Record | None) -> None:
        """Remove a record, also where there is none. Raises ``RecordError``."""
        path = self._file(key)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise RecordError(path, f"it cannot be removed: {error.strerror}", "mend it") from error
        self._index.remove(entries(old))

    def forget_entries(self, key: GuestKey) -> None:
        """Remove every index entry of a guest whose record cannot be read.

        Reads the whole index: not for the hook's usual path.
        """
        self._index.forget(str(key))

    def all(self) -> tuple[dict[GuestKey, Record], dict[GuestKey, RecordError]]:
        """All records that can be read, and what is wrong with the others.

        Scales with the number of guests: not for the hook's usual path.
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
        """Whose records there are, in order of name."""
        try:
            names = os.listdir(self._guests)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self._guests, error) from error
        found = sorted(n.removesuffix(_SUFFIX) for n in names if n.endswith(_SUFFIX))
        return [GuestKey.parse(name) for name in found]

    def version(self) -> tuple[int, frozenset[tuple[str, int, int]]]:
        """A value that is another one after any record was written or removed."""
        try:
            # The folder's own time tells of a record that came and went in the meantime. It
            # advances in steps of 4 ms (CONFIG_HZ=250); within one, a record written anew is
            # another file.
            changed = os.stat(self._guests).st_mtime_ns
            with os.scandir(self._guests) as found:
                return changed, frozenset((f.name, f.inode(), f.stat().st_mtime_ns) for f in found)
        except FileNotFoundError:  # the folder, or a record at this moment
            return 0, frozenset()
        except OSError as error:
            raise _unreadable(self._guests, error) from error

    # -- the index ---------------------------------------------------------------------------

    def holders(self, claims: Iterable[Claim]) -> Iterator[tuple[GuestKey, Claim, Claim]]:
        """Who may have claims that overlap these: key, its claim, ours. Its record must confirm."""
        return self._index.holders(claims)

    def users_of_bridge(self, bridge: str) -> list[GuestKey]:
        """Whose ports may need the exception of libvirt's firewall for a bridge."""
        return self._index.keys(f"bridges/{bridge}")

    def keys_of_uuid(self, uuid: str) -> list[GuestKey]:
        """Under which keys, beside its uuid, a guest may be known."""
        return self._index.keys(f"uuids/{uuid}") if uuid else []

    def rebuild(self, records: Iterable[Record]) -> None:
        """Make the index what these records say; only what differs is written."""
        make_safe_directory(self._index.directory)
        self._index.replace({path for record in records for path in entries(record)})

    def clear(self) -> None:
        """Remove all records and their index; the lock stays."""
        for folder in (self._guests, self._index.directory):
            for inside, _, names in os.walk(folder, topdown=False):
                for name in names:
                    os.unlink(os.path.join(inside, name))
                os.rmdir(inside)

    # -- what `cgw node up` changed ----------------------------------------------------------

    def gateway_changes(self) -> dict[str, Any]:
        """What `cgw node up` wrote down; empty where it changed nothing. Raises ``RecordError``."""
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
        """Write down what `cgw node up` is about to change; empty: nothing is left changed."""
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
                self._node_file, f"it cannot be written: {error.strerror}", "mend it"
            ) from error

    @property
    def _node_file(self) -> str:
        return os.path.join(self.directory, "node.json")

    def _file(self, key: GuestKey) -> str:
        return record_file(self.directory, str(key))


def _unreadable(folder: str, error: OSError) -> RecordError:
    is_forbidden = isinstance(error, PermissionError)
    cure = "run the command as root" if is_forbidden else "remove what is there"
    return RecordError(folder, f"it cannot be read: {error.strerror}", cure)

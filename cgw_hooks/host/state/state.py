"""Everything under the runtime directory: records, index, lock, and changes of `cgw node up`.

No other module knows the names of these files.

A reboot deletes the runtime directory, as it deletes the rules.
"""

from __future__ import annotations

import os

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.core.record import to_json
from cgw_hooks.errors import RecordError
from cgw_hooks.host.state import registry_status
from cgw_hooks.host.state.directory import fault_of, make_safe_directory
from cgw_hooks.host.state.gateway_files import GatewayFiles
from cgw_hooks.host.state.index import Index, entries
from cgw_hooks.host.state.lock import WAIT, Lock
from cgw_hooks.host.state.record_files import RecordFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import Any

    from cgw_hooks.core.published_port import Claim
    from cgw_hooks.core.record import Record
    from cgw_hooks.host.state.index import Faults
    from cgw_hooks.host.state.record_files import Version

#: Seconds: libvirt itself waits up to 30 s for a guest that is starting.
_LONGEST_EDIT = 90.0


class State:
    """What this node remembers. A caller that changes it must hold ``locked()``.

    ``check`` is called when the lock is taken. If it raises an exception, the lock is released.
    ``wait`` is the longest time, in seconds, to wait for one other holder of the lock.
    """

    def __init__(
        self, directory: str, check: Callable[[], None] = lambda: None, wait: float = WAIT
    ) -> None:
        self.directory = directory
        self._check = check
        self._wait = wait
        self._index = Index(directory)
        self._records = RecordFiles(directory)
        self._gateway = GatewayFiles(directory)

    def locked(self, wait: float | None = None) -> Lock:
        """Return the node's lock, for ``with``. Raises ``LockError``.

        ``wait`` replaces that of this object.
        """
        return Lock(self.directory, self._wait if wait is None else wait, check=self._check)

    def editing(self) -> Lock:
        """Return the lock of commands that edit annotations, for ``with``.

        No hook takes it, so libvirt may be asked while it is held. Raises like ``locked``.
        """
        return Lock(self.directory, _LONGEST_EDIT, "editing")

    def taking_over(self) -> Lock:
        """Return the lock of commands that take a node over, for ``with``.

        They may wait for conntrackd, so hooks do not take it. Raises like ``locked``.
        """
        return Lock(self.directory, _LONGEST_EDIT, "takeover")

    # -- records -----------------------------------------------------------------------------

    def find(self, key: GuestKey) -> Record | None:
        """Return a guest's record, or None. Raises ``RecordError`` if it cannot be read."""
        return self._records.find(key)

    def peek(self, key: GuestKey) -> Record | None:
        """Return a guest's record; None if there is none or it cannot be read."""
        try:
            return self.find(key)
        except RecordError:
            return None

    def has(self, key: GuestKey) -> bool:
        """Whether there is a record of a guest, even an unreadable one."""
        return os.path.exists(self._records.path(key))

    def write(self, record: Record, old: Record | None) -> None:
        """Replace the record ``old``; a reader sees either the old or the new one.

        New index entries are added before the record is written, and old ones are removed after.
        So a crash can leave too many entries, but never too few. Raises ``RecordError``.
        """
        path = self._records.path(record.key)
        before, after = entries(old), entries(record)
        try:
            make_safe_directory(self._records.folder)
            self._index.add(after - before)
            self._records.replace(path, to_json(record).encode())
        except OSError as error:
            raise RecordError(
                path, f"it cannot be written: {error.strerror}", "run: cgw sync"
            ) from error
        self._index.remove(before - after)

    def remove(self, key: GuestKey, old: Record | None) -> None:
        """Remove a record, if there is one. Raises ``RecordError``."""
        path = self._records.path(key)
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

        The cost grows with the number of guests, so the usual hook call must not use this. A
        record that this object has read before is read again only if its file has changed.
        """
        return self._records.all()

    def keys(self) -> list[GuestKey]:
        """Return the keys of all records, sorted."""
        return self._records.keys()

    def changed_at(self) -> int:
        """Return when a record was last written or removed, in ns; 0 if there never was one."""
        try:
            return os.stat(self._records.folder).st_mtime_ns
        except OSError:
            return 0

    def version(self) -> Version:
        """Return a value that differs after any record was written or removed."""
        return self._records.version()

    def changes_since(self, version: Version) -> set[GuestKey]:
        """Return the keys whose records were written or removed since that version."""
        return self._records.changes_since(version)

    def add_to_version(self, version: Version, key: GuestKey) -> None:
        """Let a record that the caller has just written be a part of a version."""
        self._records.add_to_version(version, key)

    def fault(self) -> RecordError | None:
        """Return the error if others can write to the runtime directory; then nobody may."""
        return fault_of(self.directory)

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

    def own_keys(self, uuid: str) -> list[GuestKey]:
        """Return the keys that this node's own guest with this uuid may have."""
        others = [key for key in self.keys_of_uuid(uuid) if not key.is_remote]
        return [*(GuestKey(driver, uuid) for driver in DRIVERS), *others]

    def index_faults(self, records: Iterable[Record]) -> Faults:
        """Return the differences between the index and these records. This needs no lock."""
        return self._index.faults({path: r.key for r in records for path in entries(r)})

    def mend_index(self, faults: Faults, but_for: Collection[GuestKey] = ()) -> None:
        """Remove these differences, but not those of the keys ``but_for``."""
        missing, extra = faults
        if missing:
            make_safe_directory(self._index.directory)
        self._index.add(path for path, key in missing.items() if key not in but_for)
        self._index.remove(path for path, key in extra.items() if key not in but_for)

    def clear(self) -> None:
        """Remove all records and their index, but not the lock."""
        for folder in (self._records.folder, self._index.directory):
            for inside, _, names in os.walk(folder, topdown=False):
                for name in names:
                    os.unlink(os.path.join(inside, name))
                os.rmdir(inside)

    @property
    def records_folder(self) -> str:
        """The folder of the record files, to be watched for changes; see ``key_of_file``."""
        return self._records.folder

    def key_of_file(self, name: str) -> GuestKey | None:
        """Return the key of a file in ``records_folder``; None if it is no record."""
        return self._records.key_of(name)

    # -- what the agent knows of the registry ------------------------------------------------

    def registry_status(self) -> dict[str, Any]:
        """Return what the agent has written last; empty if nothing, or nothing readable."""
        return registry_status.read(self._registry_file)

    def write_registry_status(self, status: dict[str, Any]) -> None:
        """Replace what other processes may know of the registry; empty removes it.

        Raises ``RecordError``.
        """
        registry_status.write(self._registry_file, status)

    # -- changes of `cgw node up` ------------------------------------------------------------

    def gateway_changes(self) -> dict[str, Any]:
        """Return the recorded changes of `cgw node up`; may be empty. Raises ``RecordError``."""
        return self._gateway.changes()

    def write_gateway_changes(self, changes: dict[str, Any]) -> None:
        """Record the changes that `cgw node up` is about to make; empty if none is left."""
        self._gateway.write(changes)

    def mark_gateway(self, *, down: bool) -> None:
        """Remember whether `cgw node down` has taken this gateway out of service."""
        self._gateway.mark(down=down)

    def note_lost_gateway(self) -> None:
        """Note that addresses of the gateway are gone: cgw-resync.path waits for this."""
        self._gateway.note_lost()

    def is_gateway_down(self) -> bool:
        """Whether `cgw node down` has taken this gateway out of service."""
        return self._gateway.is_down()

    @property
    def _registry_file(self) -> str:
        return os.path.join(self.directory, "registry.json")

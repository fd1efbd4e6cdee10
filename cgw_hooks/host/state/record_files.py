"""Reads the record files, and keeps what it has read.

A resident process reads a record again only if its file has changed. A hook call reads each of
the few records that it needs once.
"""

from __future__ import annotations

import os
from errno import ENOSPC

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.record import from_json
from cgw_hooks.errors import RecordError
from cgw_hooks.host.paths import record_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.record import Record

    #: Inode, time of the last change in nanoseconds, size in bytes. A record is never changed in
    #: place: each new one is a new file, whose inode differs from that of the file it replaces.
    #: (Of three files within one 4 ms step of the kernel's clock, the third may have the inode
    #: of the first; /run is a tmpfs, which uses no inode number again.)
    Stamp = tuple[int, int, int]
    #: The time of the folder, and the name and stamp of each file. The folder's time changes also
    #: if a record was added and removed. That time has steps of 4 ms (CONFIG_HZ=250).
    Version = tuple[int, dict[str, Stamp]]

_SUFFIX = ".json"


class RecordFiles:
    """The record files in one runtime directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.folder = os.path.dirname(record_file(directory, ""))
        # The lock admits one writer. If it is killed, the next one overwrites this file.
        self._new = os.path.join(directory, "record.new")
        #: Path -> the stamp of its file, and what it held.
        self._read: dict[str, tuple[Stamp, Record]] = {}

    def path(self, key: GuestKey) -> str:
        """Return the path of a guest's record."""
        return record_file(self._directory, str(key))

    def key_of(self, name: str) -> GuestKey | None:
        """Return the key of a file in the folder; None if it is no record."""
        return _key(name) if name.endswith(_SUFFIX) else None

    def find(self, key: GuestKey) -> Record | None:
        """Return a guest's record, or None. Raises ``RecordError`` if it cannot be read."""
        return self._find(self.path(key))

    def replace(self, path: str, text: bytes) -> None:
        """Write a record in the place of the one that is there, if any. Raises ``OSError``."""
        # Thousands of records: open() with its buffers would take three times as long.
        descriptor = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            written = os.write(descriptor, text)
        finally:
            os.close(descriptor)
        if written < len(text):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        os.replace(self._new, path)

    def all(self) -> tuple[dict[GuestKey, Record], dict[GuestKey, RecordError]]:
        """Return all readable records, sorted by key, and the errors of the others."""
        records, errors, there = {}, {}, {}
        for name, stamp in sorted(self.version()[1].items()):
            if not name.endswith(_SUFFIX):
                continue
            path = os.path.join(self.folder, name)
            read = self._read.get(path)
            try:
                record = read[1] if read and read[0] == stamp else self._find(path)
            except RecordError as error:
                errors[_key(name)] = error
                continue
            if record:
                records[_key(name)] = record
                there[path] = self._read[path]
        self._read = there
        return records, errors

    def keys(self) -> list[GuestKey]:
        """Return the keys of all records, sorted."""
        return [_key(name) for name in sorted(self.version()[1]) if name.endswith(_SUFFIX)]

    def version(self) -> Version:
        """Return a value that differs after any change. Raises ``RecordError``."""
        try:
            changed = os.stat(self.folder).st_mtime_ns
            with os.scandir(self.folder) as found:
                return changed, dict(_with_stamps(found))
        except FileNotFoundError:
            return 0, {}
        except OSError as error:
            is_forbidden = isinstance(error, PermissionError)
            cure = "run the command as root" if is_forbidden else "remove it"
            message = f"it cannot be read: {error.strerror}"
            raise RecordError(self.folder, message, cure) from error

    def changes_since(self, version: Version) -> set[GuestKey]:
        """Return the keys whose records were written or removed since that version."""
        differing = self.version()[1].items() ^ version[1].items()
        return {_key(name) for name, _ in differing if name.endswith(_SUFFIX)}

    def add_to_version(self, version: Version, key: GuestKey) -> None:
        """Let a record that was just written be a part of a version."""
        path = self.path(key)
        try:
            version[1][os.path.basename(path)] = _stamp(os.stat(path))
        except FileNotFoundError:  # somebody has removed it: then it counts as changed
            return

    def _find(self, path: str) -> Record | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                stamp = _stamp(os.fstat(descriptor))
                read = self._read.get(path)
                if read is None or read[0] != stamp:
                    text = os.read(descriptor, stamp[2]).decode("utf-8")
                    read = self._read[path] = (stamp, from_json(text))
                return read[1]
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RecordError(
                path, f"the record cannot be read ({error})", "run: cgw sync"
            ) from error


def _with_stamps(found: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, Stamp]]:
    for entry in found:
        try:
            yield entry.name, _stamp(entry.stat())
        except FileNotFoundError:  # it was removed at this moment
            continue


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_mtime_ns, found.st_size


def _key(name: str) -> GuestKey:
    return GuestKey.parse(name.removesuffix(_SUFFIX))

"""The guests' record files: one to a guest, replaced whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from cgw_hooks.core.record import from_json, to_json
from cgw_hooks.errors import RecordError
from cgw_hooks.host.paths import record_file
from cgw_hooks.host.state.directory import make_safe_directory

if TYPE_CHECKING:
    from cgw_hooks.core.record import Record

_SUFFIX = ".json"


class Records:
    """The records in ``directory``. To write or forget one, hold the node's lock."""

    def __init__(self, directory: str) -> None:
        self._runtime_directory = directory
        self.directory = os.path.dirname(record_file(directory, ""))

    def find(self, key: str) -> Record | None:
        """The record of a guest. Raises ``RecordError`` where it cannot be read."""
        path = self._file(key)
        try:
            with open(path, encoding="utf-8") as file:
                return from_json(file.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RecordError(
                f"{path}: the record cannot be read ({error}); remove it and run: cgw sync"
            ) from error

    def write(self, record: Record) -> None:
        """Keep a record: a reader, also after a crash, sees the old one or the new one."""
        make_safe_directory(self.directory)
        path = self._file(record.guest.key)
        # One writer at a time, by the lock: what a killed one leaves here, the next overwrites.
        new = os.path.join(self._runtime_directory, "record.new")
        try:
            with open(new, "w", encoding="utf-8") as file:
                file.write(to_json(record))
            os.replace(new, path)
        except OSError as error:
            raise RecordError(f"{path}: cannot be written: {error.strerror}") from error

    def forget(self, key: str) -> None:
        """Remove a record, also where there is none."""
        with suppress(FileNotFoundError):
            os.unlink(self._file(key))

    def list_keys(self) -> list[str]:
        """Whose records there are, in order of name."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))

    def all(self) -> tuple[list[Record], list[RecordError]]:
        """All records that can be read, and what is wrong with the others.

        Scales with the number of guests: not for the hook's usual path.
        """
        records, errors = [], []
        for key in self.list_keys():
            try:
                record = self.find(key)
            except RecordError as error:
                errors.append(error)
            else:
                if record:
                    records.append(record)
        return records, errors

    def version(self) -> int:
        """A number that is another one after any record was written or forgotten."""
        try:
            return os.stat(self.directory).st_mtime_ns
        except FileNotFoundError:
            return 0

    def _file(self, key: str) -> str:
        return record_file(self._runtime_directory, key)

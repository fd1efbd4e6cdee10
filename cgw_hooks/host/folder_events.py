"""Changes of names in some folders, by inotify(7).

A folder may come later and may vanish: its parent, or the nearest folder above it that exists, is
watched as well. There is no well-kept Python package for this in Debian, so ctypes calls libc.
"""

from __future__ import annotations

import ctypes
import os
import struct

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_EVENT = struct.Struct("=iIII")  # struct inotify_event: watch, mask, cookie, length of the name
#: Masks, include/uapi/linux/inotify.h.
_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
_ONLY_FOLDERS, _ADD_TO_MASK = 0x01000000, 0x20000000
_NAMES = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_ABOVE = _ONLY_FOLDERS | _ADD_TO_MASK | _NAMES | _DELETE_SELF | _MOVE_SELF
_FOLDER = _ABOVE | _CLOSE_WRITE
_ENDS = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED
_NONE = -1
_BUFFER_SIZE = 1 << 16
#: Buffers per ``read``. A caller that selects is called again, so that no flood holds it.
_BUFFERS_AT_ONCE = 64


class Names(NamedTuple):
    """What has changed since the last look."""

    #: (folder, name) of what was made, written, moved in or out, or deleted. The name "" stands
    #: for the whole folder: it has come, has gone, or is another one now.
    changed: frozenset[tuple[str, str]] = frozenset()
    #: Whether changes were missed: anything may have changed.
    lost: bool = False

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.changed or self.lost)


class _Place:
    """How one folder is watched: the folder itself, if it exists, and the nearest one above."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.watch = _NONE
        self.above = _NONE
        #: The name in the folder above that leads to this folder.
        self.next_name = ""


class FolderEvents:
    """Hears of the changes. Only one thread may use it. Raises ``OSError``.

    ``folders`` are absolute paths. What is in them at first is not told.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self._places = [_Place(os.path.normpath(folder)) for folder in folders]
        self._watches: set[int] = set()
        try:
            for place in self._places:
                self._settle(place)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, which is readable if there is news."""
        return self._descriptor

    def close(self) -> None:
        """Hear nothing more."""
        os.close(self._descriptor)

    def read(self) -> Names:
        """Return what has changed; do not wait for more. Raises ``OSError``."""
        changed: set[tuple[str, str]] = set()
        moved: set[_Place] = set()
        lost = False
        for watch, mask, name in self._events():
            if mask & _OVERFLOW:
                lost = True
                moved.update(self._places)
                continue
            for place in self._places:
                if mask & _ENDS:
                    if watch in {place.watch, place.above}:
                        moved.add(place)
                elif watch == place.watch:
                    changed.add((place.folder, name))
                if watch == place.above and name == place.next_name and mask & _NAMES:
                    moved.add(place)
        for place in moved:
            if self._settle(place):
                changed.add((place.folder, ""))
        self._remove_unused()
        return Names(frozenset(changed), lost)

    def _events(self) -> Iterator[tuple[int, int, str]]:
        """Yield watch, mask and name of each event that has come."""
        for _ in range(_BUFFERS_AT_ONCE):
            try:
                found = os.read(self._descriptor, _BUFFER_SIZE)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(found):
                watch, mask, _cookie, length = _EVENT.unpack_from(found, offset)
                offset += _EVENT.size
                yield watch, mask, os.fsdecode(found[offset : offset + length].rstrip(b"\0"))
                offset += length

    def _settle(self, place: _Place) -> bool:
        """Watch a folder and the nearest one above; return whether it is another folder now."""
        before, place.watch = place.watch, _NONE
        above, below = os.path.dirname(place.folder), place.folder
        while True:
            place.above = self._add(above, _ABOVE)
            if place.above == _NONE:
                above, below = os.path.dirname(above), above
                continue
            if below == place.folder:
                place.watch = self._add(below, _FOLDER)
                break
            if not os.path.isdir(below):  # only now: it may have come before the watch
                break
            above, below = below, _one_further(below, place.folder)
        place.next_name = os.path.basename(below)
        return place.watch != before

    def _add(self, path: str, mask: int) -> int:
        """Watch a folder; return the watch, which is the same for the same folder."""
        try:
            watch = self._call("inotify_add_watch", self._descriptor, os.fsencode(path), mask)
        except (FileNotFoundError, NotADirectoryError):
            return _NONE
        self._watches.add(watch)
        return watch

    def _remove_unused(self) -> None:
        used = {watch for place in self._places for watch in (place.watch, place.above)}
        for watch in self._watches - used:
            self._libc.inotify_rm_watch(self._descriptor, watch)  # it may be gone already
        self._watches &= used

    def _call(self, name: str, *arguments: int | bytes) -> int:
        result = int(getattr(self._libc, name)(*arguments))
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")
        return result


def _one_further(above: str, folder: str) -> str:
    """Return the path one name nearer to the folder."""
    rest = os.path.relpath(folder, above)
    return os.path.join(above, rest.partition(os.sep)[0])

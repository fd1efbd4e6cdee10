"""Folders that take long to build. They are kept between runs, and named by their ingredients.

A build has a temporary name and is renamed when it is complete, so an existing folder is
complete. Locks prevent two runs from building the same folder, and prevent a run from removing a
folder that another run uses. The locks are held until the process ends.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

DEFAULT_CACHE = "/var/cache/cgw-lab"
KEEP_UNUSED_SECONDS = 24 * 3600.0

_in_use: dict[Path, int] = {}
"""The open lock files of the folders this process uses."""


def cache_folder() -> Path:
    """The folder that holds all builds: `$CGW_LAB_CACHE`, made when missing."""
    folder = Path(os.environ.get("CGW_LAB_CACHE") or DEFAULT_CACHE)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(kind: str, ingredients: Iterable[str], build: Callable[[Path], None]) -> Path:
    """Return the folder of this kind and these ingredients; `build` fills it if it does not exist.

    The path stays valid until this process ends, even if other runs remove folders.
    """
    digest = hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:12]
    folder = cache_folder() / f"{kind}-{digest}"
    if folder in _in_use:
        return folder
    lock = _open_lock(folder)
    fcntl.flock(lock, fcntl.LOCK_SH)
    if not folder.exists():
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _build_whole(folder, build)
        fcntl.flock(lock, fcntl.LOCK_SH)
    os.utime(folder)
    _in_use[folder] = lock
    _remove_unused(kind)
    return folder


def _open_lock(folder: Path) -> int:
    return os.open(_lock_path(folder), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.unfinished")


def _build_whole(folder: Path, build: Callable[[Path], None]) -> None:
    """Build under a temporary name, whose lock the caller must hold, then rename."""
    unfinished = _unfinished(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        build(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove_unused(kind: str) -> None:
    """Remove builds of this kind that no run uses: unfinished ones, and those unused for a day."""
    for lock_path in cache_folder().glob(f".{kind}-*.lock"):
        folder = lock_path.with_name(lock_path.name.removeprefix(".").removesuffix(".lock"))
        if folder in _in_use:
            continue
        lock = _open_lock(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(_unfinished(folder), ignore_errors=True)
            if folder.exists() and time.time() - folder.stat().st_mtime > KEEP_UNUSED_SECONDS:
                shutil.rmtree(folder)
                lock_path.unlink()
        except BlockingIOError:
            pass
        finally:
            os.close(lock)

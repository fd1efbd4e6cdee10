"""``cgw install`` and ``cgw uninstall``: the hooks and the unit, put in place and taken away.

Only files that this module wrote are replaced or removed, known by the line that
each of them bears.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.errors import InstallError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator


#: In every file of ours.
_OURS = "cgw-hooks"
_HOOK = "50-cgw"
_VIF_SCRIPT = "vif-cgw"
#: For vifs that name it, and for all others, beside the script that they name.
_VIF_PLACES = (f"etc/xen/scripts/{_VIF_SCRIPT}", "etc/xen/scripts/vif-post.d/cgw.hook")
_UNIT_FOLDER = "etc/systemd/system"
_UNITS = ("cgw.service", "cgw-node.service")
_EXAMPLE = "etc/cgw/cgw.toml.example"


def install(root: Path, *, xen: bool = False) -> Iterator[str]:
    """Put hooks, unit and example config in place; yield a line to each.

    ``root``: where the host's own root is, "/" or a folder that becomes one. Raises
    ``InstallError``.
    """
    cgw = _own_path()
    sources = _sources()
    hook = (sources / "hooks/qemu.d" / _HOOK).read_text(encoding="utf-8")
    hook = hook.replace("cgw=cgw  ", f"cgw='{cgw}'  ", 1)
    for driver in DRIVERS:
        yield _write(root / f"etc/libvirt/hooks/{driver}.d/{_HOOK}", hook, 0o755)
    if xen:
        script = (sources / "hooks/xl" / _VIF_SCRIPT).read_text(encoding="utf-8")
        script = script.replace("cgw=cgw  ", f"cgw='{cgw}'  ", 1)
        for place in _VIF_PLACES:
            yield _write(root / place, script, 0o755)
    for name in _UNITS:
        unit = (sources / "etc" / name).read_text(encoding="utf-8")
        unit = f"# {_OURS}\n" + unit.replace("/usr/local/bin/cgw", str(cgw))
        yield _write(root / _UNIT_FOLDER / name, unit, 0o644)
    yield _write(root / _EXAMPLE, (sources / "etc/cgw.toml").read_text(encoding="utf-8"), 0o644)


def uninstall(root: Path) -> Iterator[str]:
    """Take away what ``install`` put in place, and folders that are empty then."""
    for driver in DRIVERS:
        yield from _remove(root / f"etc/libvirt/hooks/{driver}.d/{_HOOK}")
    for place in _VIF_PLACES:
        yield from _remove(root / place)
    for name in _UNITS:
        yield from _remove(root / _UNIT_FOLDER / name)
    yield from _remove(root / _EXAMPLE)


def next_steps() -> list[str]:
    """What a person has to do after an install."""
    return [
        "libvirt looks for hooks when it starts. Once, run: systemctl reload libvirtd",
        f"Then, for guests that run already, run: {_own_path().name} sync",
    ]


def _own_path() -> Path:
    """The ``cgw`` that runs now, as hooks and unit are to call it."""
    path = Path(shutil.which(sys.argv[0]) or sys.argv[0]).absolute()
    # systemd and sh each have special characters of their own.
    special = set(str(path)) & set(" '\"\\$%") or not str(path).isprintable()
    if special or not path.name.startswith("cgw"):
        raise InstallError(
            quoted(path),
            "it is not a path of cgw itself, or has spaces, quotes, $, % or backslashes",
            "call install by another path of cgw",
        )
    return path


def _sources() -> Path:
    """The folder that holds hooks/ and etc/: in the package as installed, or beside it."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "share", package.parent):
        if (folder / "hooks/qemu.d" / _HOOK).is_file():
            return folder
    raise InstallError(str(package), "its hook scripts are missing", "install cgw-hooks anew")


def _write(path: Path, text: str, mode: int) -> str:
    try:
        if os.path.lexists(path) and not _is_ours(path):
            raise InstallError(
                str(path), "it is there already and is not ours", "move it away first"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        if os.path.lexists(new):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
        new.replace(path)
    except OSError as error:
        raise InstallError(str(path), f"it cannot be written: {error.strerror}") from error
    return f"wrote {path}"


def _remove(path: Path) -> Iterator[str]:
    if not os.path.lexists(path):
        return
    if not _is_ours(path):
        yield f"kept  {path} (not ours)"
        return
    try:
        path.unlink()
    except OSError as error:
        raise InstallError(str(path), f"it cannot be removed: {error.strerror}") from error
    for folder in (path.parent, path.parent.parent):
        if folder.name.endswith((".d", "cgw")) and not any(folder.iterdir()):
            folder.rmdir()
    yield f"removed {path}"


def _is_ours(path: Path) -> bool:
    try:
        return _OURS in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False

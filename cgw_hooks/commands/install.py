"""``cgw install`` and ``cgw uninstall``: install and remove the hooks and units.

Only files that this module wrote are replaced or removed. Each of them contains a line that
identifies it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cgw_hooks
from cgw_hooks.commands import host_files
from cgw_hooks.errors import InstallError, quoted
from cgw_hooks.host import confinement, dpkg, hook_files, systemd
from cgw_hooks.node import hook_trial

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Every installed file contains this line.
_OURS = "cgw-hooks"
_UNIT_FOLDER = "etc/systemd/system"
_EXAMPLE = "etc/cgw/cgw.toml.example"
#: What the unit of the agent makes (StateDirectory=): the copy of the cluster's registry.
_STATE = "var/lib/cgw"
HOST = Path("/")


def install(root: Path, *, xen: bool = False) -> Iterator[str]:
    """Install hooks, units and example config, then test the hook; yield one line per step.

    ``root`` is "/", or a folder that becomes a host's root. Raises ``InstallError``, also if the
    hook is installed but something prevents it from publishing.
    """
    yield from _put_in_place(root, xen=xen)
    if root == HOST and systemd.is_running():
        systemd.read_units_anew()
    yield from _test_hook(root)


def _put_in_place(root: Path, *, xen: bool) -> Iterator[str]:
    _refuse_where_a_package_is(root)
    sources = _sources()
    program = host_files.Program(str(_own_python()), str(_own_path()), str(_own_client()))
    callers = host_files.hooks(sources, program)
    if xen:
        callers |= host_files.vif_scripts(sources, program)
    for place, script in callers.items():
        yield _write(root / place, script, 0o755)
    for name, text in host_files.units(sources, program).items():
        unit = f"# {_OURS}\n" + text
        if any(_is_in_home(path) for path in (program.cgw, program.python, sources)):
            unit = unit.replace("ProtectHome=yes", "ProtectHome=read-only")
        yield _write(root / _UNIT_FOLDER / name, unit, 0o644)
    yield _write(root / _EXAMPLE, (sources / "etc/cgw.toml").read_text(encoding="utf-8"), 0o644)


def _test_hook(root: Path) -> Iterator[str]:
    """Raise ``InstallError`` if something prevents the first driver's hook from working."""
    hook = root / host_files.HOOK_PLACES[0]
    if root == HOST:
        found = hook_trial.obstacle(hook, str(_own_python()))
    else:
        found = hook_trial.obstacle_to_plain_guests(hook)
    if found:
        raise InstallError("the hooks are installed, but no guest is published yet", found)
    yield f"tested {hook}"
    has_apparmor = (root / "etc/apparmor.d").is_dir()
    if has_apparmor and not confinement.may_be_run_by_hooks(str(_own_python())):
        yield (
            f"note: if AppArmor confines libvirt, its hooks cannot run {_own_python()}: "
            "it is not in /usr/bin"
        )
    if not (root / "usr/bin/perl").exists():
        yield "note: without /usr/bin/perl, the hooks do not hand their calls to the agent"


def uninstall(root: Path) -> Iterator[str]:
    """Remove what ``install`` installed, and folders that are then empty.

    If systemd runs, the units are stopped and disabled first. Raises ``InstallError``.
    """
    _refuse_where_a_package_is(root)
    serving = root == HOST and systemd.is_running()
    for name in host_files.UNITS if serving else ():
        if _is_ours(root / _UNIT_FOLDER / name) and systemd.take_out_of_service(name):
            yield f"stopped and disabled {name}"
    for place in (
        *host_files.HOOK_PLACES,
        *host_files.VIF_PLACES,
        *(f"{_UNIT_FOLDER}/{name}" for name in host_files.UNITS),
        _EXAMPLE,
    ):
        yield from _remove(root / place)
    yield from _remove_state(root / _STATE)
    if serving:
        systemd.read_units_anew()


def next_steps() -> list[str]:
    """Yield what a person has to do after an install."""
    return [
        "libvirt looks for hooks when it starts. Once: systemctl try-reload-or-restart libvirtd",
        "Then start the agent, which publishes guests that run already: systemctl enable --now cgw",
        "A host without the agent runs instead: systemctl enable --now cgw-sync",
    ]


def _refuse_where_a_package_is(root: Path) -> None:
    """Raise ``InstallError`` if the hooks below this root are files of a Debian package.

    After ``apt remove`` they still are, as its conffiles.
    """
    for place in host_files.HOOK_PLACES:
        if package := dpkg.owner(root, f"/{place}"):
            raise InstallError(
                f"/{place}",
                f"it belongs to the Debian package {package}, which also has the units",
                f"there is nothing to do; to remove it, run: apt purge {package}",
            )
    own = Path(__file__).resolve()
    if package := dpkg.owner(HOST, str(own)):
        raise InstallError(
            str(own),
            f"this cgw is from the Debian package {package}, which installs hooks and units itself",
            f"install {package} in {root}",
        )


def _own_path() -> Path:
    """Return the path of the running ``cgw``, which hooks and units will call."""
    path = Path(shutil.which(sys.argv[0]) or sys.argv[0]).absolute()
    if not _is_plain(path) or not path.name.startswith("cgw"):
        raise InstallError(
            quoted(path),
            "hooks and units cannot call this path",
            "call install by the path of cgw itself, one without spaces, quotes, $, % and "
            "backslashes",
        )
    return path


def _own_python() -> Path:
    """Return the path of the running interpreter, which the hooks will call.

    In a venv this is the path in the venv: Python finds the venv by this path, and AppArmor
    checks the file that it links to.
    """
    path = Path(sys.executable).absolute()
    if not _is_plain(path):
        raise InstallError(
            quoted(path),
            "the interpreter's path has spaces, quotes, $, % or backslashes",
            "install cgw with another one",
        )
    return path


def _own_client() -> Path:
    """Return the path of the program that hands a hook call to the agent."""
    path = Path(cgw_hooks.__file__).absolute().parent / "agent/client.pl"
    if not _is_plain(path):
        raise InstallError(
            quoted(path),
            "the path has spaces, quotes, $, % or backslashes",
            "install cgw elsewhere",
        )
    return path


def _is_in_home(path: str | Path) -> bool:
    """Whether ``ProtectHome=yes`` would hide a path (systemd.exec(5))."""
    return any(Path(path).is_relative_to(folder) for folder in ("/home", "/root", "/run/user"))


def _is_plain(path: Path) -> bool:
    """Whether a path has no character that is special to sh or systemd."""
    return str(path).isprintable() and not set(str(path)) & set(" '\"\\$%")


def _sources() -> Path:
    """Return the folder of hooks/ and etc/: within the installed package, or beside it."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "share", package.parent):
        if (folder / "hooks/qemu.d" / hook_files.HOOK).is_file():
            return folder
    raise InstallError(str(package), "its hook scripts are missing", "install cgw-hooks again")


def _write(path: Path, text: str, mode: int) -> str:
    try:
        if os.path.lexists(path) and not _is_ours(path):
            raise InstallError(
                str(path), "the file exists and is not from cgw", "move it away first"
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
        yield f"kept  {path} (not from cgw)"
        return
    try:
        path.unlink()
    except OSError as error:
        raise InstallError(str(path), f"it cannot be removed: {error.strerror}") from error
    for folder in (path.parent, path.parent.parent):
        if folder.name.endswith((".d", "cgw")) and not any(folder.iterdir()):
            folder.rmdir()
    yield f"removed {path}"


def _remove_state(folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise InstallError(str(folder), f"it cannot be removed: {error.strerror}") from error
    yield f"removed {folder}"


def _is_ours(path: Path) -> bool:
    try:
        return _OURS in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False

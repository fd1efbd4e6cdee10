"""The confinement of libvirt's hooks by AppArmor profiles and SELinux, read from /sys."""

from __future__ import annotations

import os
from pathlib import Path

#: The AppArmor profiles of the libvirt daemons that run hooks (Debian ships that of libvirtd,
#: the modular daemons bring their own).
_PROFILES = ("libvirtd", "virtqemud", "virtlxcd", "virtxend")
#: The profiles allow the programs of these folders ("/usr/bin/* PUx"); AppArmor resolves
#: symbolic links first.
_ALLOWED_FOLDERS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin")
#: A profile written here holds from the next exec of the writing process on. The second file is
#: for kernels without the first (Documentation/admin-guide/LSM/index.rst).
_AT_EXEC = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")


def enforced_profiles(sys_folder: Path) -> list[str]:
    """Return the AppArmor profiles of libvirt's daemons that are enforced now."""
    loaded = _read(sys_folder / "kernel/security/apparmor/profiles").splitlines()
    return [name for name in _PROFILES if f"{name} (enforce)" in loaded]


def may_be_run_by_hooks(program: str) -> bool:
    """Whether the AppArmor profile of libvirtd allows a hook to run this program."""
    return os.path.dirname(os.path.realpath(program)) in _ALLOWED_FOLDERS


def enter_profile_at_exec(profile: str) -> None:
    """Make the next program that this process executes run under an AppArmor profile.

    Raises ``OSError`` if the kernel refuses.
    """
    for path in _AT_EXEC:
        if os.path.exists(path):
            with open(path, "w", encoding="ascii") as file:
                file.write(f"exec {profile}")
            return
    raise FileNotFoundError(_AT_EXEC[0])


def does_selinux_hold_hooks(sys_folder: Path) -> bool:
    """Whether SELinux is enforcing and its policy confines hooks to the domain of virtd.

    The file of the boolean holds its present and its pending value ("0 0").
    """
    folder = sys_folder / "fs/selinux"
    unconfined = _read(folder / "booleans/virt_hooks_unconfined")
    return _read(folder / "enforce").strip() == "1" and unconfined.startswith("0")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # the kernel has no such module, or its file system is not mounted
        return ""

"""What confines the hooks that libvirt runs: AppArmor's profiles and SELinux, read from /sys."""

from __future__ import annotations

import os
from pathlib import Path

#: Each daemon of libvirt that runs hooks has a profile of this name (Debian ships that of
#: libvirtd, the modular daemons bring their own).
_PROFILES = ("libvirtd", "virtqemud", "virtlxcd", "virtxend")
#: "/usr/bin/* PUx" and the like in those profiles, after symbolic links are resolved.
_ALLOWED_FOLDERS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin")
#: The kernel reads it at the next exec of the process that wrote it; the second is its name where
#: AppArmor is the only such module (Documentation/admin-guide/LSM/index.rst).
_AT_EXEC = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")


def enforced_profiles(sys_folder: Path) -> list[str]:
    """The AppArmor profiles of libvirt's daemons that are enforced now."""
    loaded = _read(sys_folder / "kernel/security/apparmor/profiles").splitlines()
    return [name for name in _PROFILES if f"{name} (enforce)" in loaded]


def may_be_run_by_hooks(program: str) -> bool:
    """Whether AppArmor's profile of libvirtd lets a hook run this program."""
    return os.path.dirname(os.path.realpath(program)) in _ALLOWED_FOLDERS


def enter_profile_at_exec(profile: str) -> None:
    """Let the program that this process becomes next run under an AppArmor profile.

    Raises ``OSError`` when the kernel refuses.
    """
    for path in _AT_EXEC:
        if os.path.exists(path):
            with open(path, "w", encoding="ascii") as file:
                file.write(f"exec {profile}")
            return
    raise FileNotFoundError(_AT_EXEC[0])


def does_selinux_hold_hooks(sys_folder: Path) -> bool:
    """Whether SELinux is enforcing and the policy keeps hooks in virtd's domain.

    The boolean's file holds its present and its pending value ("0 0").
    """
    folder = sys_folder / "fs/selinux"
    unconfined = _read(folder / "booleans/virt_hooks_unconfined")
    return _read(folder / "enforce").strip() == "1" and unconfined.startswith("0")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # this kernel has no such module, or its file system is not mounted
        return ""

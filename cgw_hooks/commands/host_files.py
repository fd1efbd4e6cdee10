"""The files by which a host calls cgw: hooks, vif scripts, units. Their text, not their writing.

``cgw install`` writes them for the cgw that runs; the Debian package contains them, written for
its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.host import hook_files
from cgw_hooks.host.hook_files import HOOK

_VIF_SCRIPT = "vif-cgw"
#: Places below a host's root.
HOOK_PLACES = tuple(hook_files.path(driver).lstrip("/") for driver in DRIVERS)
#: The script for vifs that name it, and the hook for all others, beside the script that they
#: name.
VIF_PLACES = (f"etc/xen/scripts/{_VIF_SCRIPT}", "etc/xen/scripts/vif-post.d/cgw.hook")
UNITS = (
    "cgw.service", "cgw-sync.service", "cgw-node.service", "cgw-resync.service", "cgw-resync.path",
    "cgw-conntrackd.service",
)  # fmt: skip


class Program(NamedTuple):
    """Absolute paths, without characters that are special to sh or systemd."""

    python: str
    """The interpreter that the hooks call."""
    cgw: str
    client: str
    """The program that hands a hook call to the agent."""


def hooks(sources: Path, program: Program) -> dict[str, str]:
    """Return place -> text of libvirt's hooks. ``sources`` is the folder of hooks/ and etc/."""
    text = _calling(sources / "hooks/qemu.d" / HOOK, program)
    return dict.fromkeys(HOOK_PLACES, text)


def vif_scripts(sources: Path, program: Program) -> dict[str, str]:
    """Return place -> text of the scripts that xl runs."""
    text = _calling(sources / "hooks/xl" / _VIF_SCRIPT, program)
    return dict.fromkeys(VIF_PLACES, text)


def units(sources: Path, program: Program) -> dict[str, str]:
    """Return name -> text of the units."""
    return {
        name: (sources / "etc" / name)
        .read_text(encoding="utf-8")
        .replace("/usr/local/bin/cgw", program.cgw)
        for name in UNITS
    }


def _calling(script: Path, program: Program) -> str:
    text = script.read_text(encoding="utf-8")
    text = text.replace("python= cgw=cgw", f"python='{program.python}' cgw='{program.cgw}'", 1)
    return text.replace("client=\n", f"client='{program.client}'\n", 1)

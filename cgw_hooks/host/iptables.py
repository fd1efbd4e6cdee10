"""Reads the rules of iptables and ip6tables, of both variants. Changes nothing."""

from __future__ import annotations

import subprocess

#: IP version -> the command, and nft's name of the family.
COMMANDS = {4: ("iptables", "ip"), 6: ("ip6tables", "ip6")}
_SECONDS = 5.0


def save(version: int, variant: str) -> str | None:
    """Return the output of ``iptables-save`` of a variant ("nft", "legacy").

    None if there is no such program, or if it fails.
    """
    command, _ = COMMANDS[version]
    names = [f"{command}-{variant}-save"]
    if variant == "nft":  # some distributions have only the name without the variant
        names.append(f"{command}-save")
    for name in names:
        try:
            done = subprocess.run(  # noqa: S603  (fixed words)
                [name], capture_output=True, check=False, text=True, errors="replace",
                stdin=subprocess.DEVNULL, timeout=_SECONDS,
            )  # fmt: skip
        except FileNotFoundError:
            continue
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout if done.returncode == 0 else None
    return None


def has_legacy_tables(version: int) -> bool:
    """Whether iptables-legacy has any table; to run that command would make one."""
    _, family = COMMANDS[version]
    try:
        with open(f"/proc/net/{family}_tables_names", encoding="ascii") as file:
            return bool(file.read().split())
    except OSError:
        return False

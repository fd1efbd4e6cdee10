"""Reads the guests' network devices and their settings from xenstore, with Xen's own tool.

For a hook, the vif script reads xenstore. This module runs a process, so no hook must use it.
"""

from __future__ import annotations

import re

from cgw_hooks.errors import HypervisorError, quoted

_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|[0-7]{1,3}|.)")
_LETTERS = {"t": "\t", "n": "\n", "r": "\r"}
_SECONDS = 20


def parse_listing(text: str) -> dict[str, str]:
    """Parse the output of ``xenstore-ls -f``: path -> value."""
    tree = {}
    for line in text.splitlines():
        path, found, value = line.partition(' = "')
        if found and value.endswith('"'):
            tree[path.strip()] = _ESCAPE.sub(_meant, value[:-1])
    return tree


def read_tree(path: str = "/local/domain") -> dict[str, str]:
    """Return all values below a path. Raises ``HypervisorError``."""
    import subprocess

    try:
        done = subprocess.run(  # noqa: S603  (a fixed program, an own path)
            ["xenstore-ls", "-f", path],  # noqa: S607  (where it is differs with Xen's version)
            capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise HypervisorError(
            "xenstore", f"it does not answer ({quoted(error)})", f"see: xenstore-ls {path}"
        ) from error
    return parse_listing(done.stdout)


def _meant(escape: re.Match[str]) -> str:
    code = escape[1]
    if code[0] == "x":
        return chr(int(code[1:], 16))
    return chr(int(code, 8)) if code[0].isdigit() else _LETTERS.get(code, code)

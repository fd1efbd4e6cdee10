"""Writes the files that a host needs outside of Python's folders, for debian/rules.

Run as `place_host_files.py DESTINATION DESTINATION-FOR-XEN`.
"""

import sys
from pathlib import Path

from cgw_hooks.commands import host_files

_LAUNCHER = """\
#!/usr/bin/python3 -I
import sys
from cgw_hooks.commands.cli import main
sys.exit(main())
"""
"""Without `import re`, which pip's launcher has: it would make a hook call 6 ms longer."""

_PROGRAM = host_files.Program(
    python="/usr/bin/python3",
    cgw="/usr/bin/cgw",
    client="/usr/lib/python3/dist-packages/cgw_hooks/agent/client.pl",
)
_SOURCES = Path(__file__).parent.parent
_UNITS = Path("usr/lib/systemd/system")


def main(destination: Path, for_xen: Path) -> None:
    """Write hooks, units and launcher."""
    for place, text in host_files.hooks(_SOURCES, _PROGRAM).items():
        _write(destination / place, text, 0o755)
    for place, text in host_files.vif_scripts(_SOURCES, _PROGRAM).items():
        _write(for_xen / place, text, 0o755)
    for name, text in host_files.units(_SOURCES, _PROGRAM).items():
        _write(destination / _UNITS / name, text, 0o644)
    _write(destination / _PROGRAM.cgw.lstrip("/"), _LAUNCHER, 0o755)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

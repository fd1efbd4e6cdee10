"""A folder that a hook script under test runs in, with a program of the test's own for ``cgw``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.unit.builders import PYTHON

if TYPE_CHECKING:
    from pathlib import Path

_RECORDER = """\
#!{python} -I
import json, sys
call = {{"argv": sys.argv[1:], "stdin": sys.stdin.buffer.read().decode("latin-1")}}
with open({calls!r}, "a") as file:
    file.write(json.dumps(call) + "\\n")
print("on stdout")
print("the reason", file=sys.stderr)
sys.exit({status})
"""

#: How a program can be broken; "missing" and "not executable" besides.
_NO_GOOD = {
    "no interpreter": "#!/none/python3\n",
    "no program": "\x7fELF nonsense\n",
    "killed by a signal": "#!/bin/sh\nkill -SEGV $$\n",
    "fails": "#!/bin/sh\nexit 1\n",
    "a traceback": f"#!{PYTHON}\nimport none_such\n",
    "empty": "",
}
BROKEN = ["missing", "not executable", *_NO_GOOD]


class ScriptHost:
    """Stands for PATH and /run/cgw; ``cgw`` notes its calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        self.records_calls()

    def has_program(self, path: str, text: str) -> Path:
        """Put a program there, below the folder."""
        program = self.root / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(text, encoding="latin-1")
        program.chmod(0o755)
        return program

    def records_calls(self, status: int = 0) -> None:
        """Make ``cgw`` a program that notes its calls and ends with a status."""
        calls = str(self.root / "calls")
        self.has_program("bin/cgw", _RECORDER.format(python=PYTHON, calls=calls, status=status))

    def breaks_cgw(self, how: str) -> None:
        """Break it in one of the ways of ``BROKEN``."""
        cgw = self.root / "bin/cgw"
        if how == "missing":
            cgw.unlink()
        elif how == "not executable":
            cgw.chmod(0o644)
        else:
            self.has_program("bin/cgw", _NO_GOOD[how])

    def record(self, key: str) -> None:
        """Put a guest's record there."""
        folder = self.root / "run/guests"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{key}.json").touch()

    def environment(self) -> dict[str, str]:
        """What the script finds set."""
        return {
            "HOME": "/root",
            "LC_ALL": "C",
            "PATH": f"{self.root}/bin:/usr/bin:/bin",
            "CGW_RUNTIME_DIR": str(self.root / "run"),
        }

    def calls(self) -> list[dict[str, object]]:
        """How ``cgw`` was called so far."""
        path = self.root / "calls"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]

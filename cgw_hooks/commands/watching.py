"""``--watch``: shows the same thing again and again.

On a terminal, each look takes the place of the former one, as much of it as there is room for. In a
pipe or a file, each look follows the former one, whole.
"""

from __future__ import annotations

import gc
import io
import shutil
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime
from typing import TYPE_CHECKING

from cgw_hooks.commands.status_table import folded
from cgw_hooks.errors import CgwError, printable

if TYPE_CHECKING:
    from collections.abc import Callable

#: ECMA-48: to the first cell; erase to the end of the line; erase to the end of the screen.
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def watch(look: Callable[[], int], seconds: float, *, for_people: bool) -> int:
    """Show what ``look`` prints, again and again until Ctrl-C; return its last exit code.

    ``for_people``: in a pipe or a file, the time stands before each look. An error of the first
    look ends this; a later one is shown, and may pass. Raises ``CgwError``.
    """
    gc.enable()  # this process stays
    is_terminal = sys.stdout.isatty()
    code, is_first = 0, True
    try:
        while True:
            try:
                code = _on_terminal(look, seconds) if is_terminal else _in_pipe(look, for_people)
            except CgwError as error:
                if is_first:
                    raise
                code = error.exit_code
                _say(error, is_terminal=is_terminal)
            is_first = False
            time.sleep(seconds)
    except KeyboardInterrupt:
        if is_terminal:
            sys.stdout.write("\n")
        return code


def _in_pipe(look: Callable[[], int], for_people: bool) -> int:
    """Append one look to what was written before. A reader that has gone ends this."""
    if for_people:
        sys.stdout.write(f"{_now()}\n")
    code = look()
    sys.stdout.write("\n")
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _on_terminal(look: Callable[[], int], seconds: float) -> int:
    """Draw one look over the former one: without a moment at which the screen is empty."""
    shown = _Terminal()
    with redirect_stdout(shown), redirect_stderr(shown):
        code = look()
    _draw([f"{_now()}  every {seconds:g} s, Ctrl-C ends", "", *shown.getvalue().splitlines()])
    return code


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _say(error: CgwError, *, is_terminal: bool) -> None:
    line = f"cgw: {printable(str(error))}"
    if is_terminal:
        _draw([line])
    else:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _draw(lines: list[str]) -> None:
    columns, rows = shutil.get_terminal_size()
    lines = [piece for line in lines for piece in folded(line, columns)]
    room = max(2, rows - 1)  # the cursor is below the text, so that the terminal does not scroll
    if len(lines) > room:
        lines = [*lines[: room - 1], f"({len(lines) - room + 1} more lines)"]
    shown = "".join(f"{line}{_END_OF_LINE}\n" for line in lines)
    sys.stdout.write(f"{_HOME}{shown}{_END_OF_SCREEN}")
    sys.stdout.flush()


class _Terminal(io.StringIO):
    """What is written to a terminal later: tables are folded to its width."""

    def isatty(self) -> bool:
        """Return that this is a terminal."""
        return True

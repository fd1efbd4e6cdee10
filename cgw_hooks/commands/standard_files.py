"""Standard input and outputs of the process, which may be closed."""

from __future__ import annotations

import io
import os
import sys


def stand_in_for_closed() -> None:
    """Replace a closed output (``>&-``), for which Python has None: printing must fail as in C.

    A closed input is like an empty one.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")  # a write: EBADF
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding != "utf-8":
        # If this locale cannot write a name, the code points are written instead.
        sys.stdout.reconfigure(errors="backslashreplace")


def discard_stdout() -> None:
    """Discard the rest of stdout's buffer: the interpreter would try to write it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""Hook calls that were carried out without the agent: how long each took.

A hook adds a line, and the agent takes them all when Prometheus asks. Only a config with
``[metrics]`` lets a hook call load this module.
"""

from __future__ import annotations

import os

from cgw_hooks.host.state.directory import fault_of

_NAME = "calls"
#: Bytes. If no agent takes the lines, no more are added.
_LONGEST = 1 << 16
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ServedCalls:
    """The file below the runtime directory ``directory``."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._path = os.path.join(directory, _NAME)

    def add(self, operation: str, seconds: float) -> None:
        """Note a call. This raises no error: no hook may fail for it."""
        if fault_of(self._directory):  # somebody else may have put anything there
            return
        try:
            file = os.open(self._path, _APPEND, 0o600)
            try:
                if os.fstat(file).st_size < _LONGEST and operation.isidentifier():
                    os.write(file, f"{operation} {seconds:.6f}\n".encode())
            finally:
                os.close(file)
        except OSError:  # there is no folder yet, or it is full
            return

    def take(self) -> list[tuple[str, float]]:
        """Return operation and seconds of each call, and forget them. Raises ``OSError``."""
        taken = f"{self._path}.taken"
        try:
            os.rename(self._path, taken)
        except FileNotFoundError:
            return []
        with open(taken, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
        os.unlink(taken)
        found = []
        for words in lines:
            try:
                operation, seconds = words
                found.append((operation, float(seconds)))
            except ValueError:  # a process that was killed has written a part
                continue
        return found

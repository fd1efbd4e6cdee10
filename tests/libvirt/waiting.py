"""Waiting for what happens by itself."""

import time
from collections.abc import Callable


def eventually(condition: Callable[[], bool], within: float = 300.0) -> bool:
    """Whether the condition comes true in time (seconds)."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True

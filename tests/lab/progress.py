"""One line on stderr for work that takes long; nothing for short work."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

QUIET_SECONDS = 3.0


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Say on stderr that `what` is being done, with the seconds so far, once it has taken over 3 s.

    On a terminal the seconds count up in place; in a log there are no control characters.
    """
    started = time.monotonic()
    finished = threading.Event()
    reporter = threading.Thread(target=_report, args=(what, started, finished), daemon=True)
    reporter.start()
    try:
        yield
    finally:
        finished.set()
        reporter.join()


def _report(what: str, started: float, finished: threading.Event) -> None:
    if finished.wait(QUIET_SECONDS):
        return
    if sys.stderr.isatty():
        while not finished.wait(1.0):
            _write(f"\r{what} ... {time.monotonic() - started:.0f} s")
        _write(f"\r{what} ... {time.monotonic() - started:.0f} s\n")
    else:
        _write(f"{what} ... ")
        finished.wait()
        _write(f"{time.monotonic() - started:.0f} s\n")


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()

"""What a hook call answers: a refusal to who started the guest, the rest to syslog."""

from __future__ import annotations

import sys

from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import CgwError, printable, quoted
from cgw_hooks.host import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.publisher import Publisher


def refuse(node: Publisher, guest: Guest, error: CgwError, *, may_refuse: bool) -> int:
    """Refuse a guest by the exit code, or by policy only note why it is not published."""
    if may_refuse and node.config.policy.refuse_invalid:
        _say(f"cgw: {error}")
        return error.exit_code
    node.note_problem(guest, Problem.of(error))
    raise error


def log_published(record: Record) -> None:
    """Say in syslog what a guest publishes from now on, and what is withheld."""
    who = f"guest {quoted(record.guest.name)}"
    if record.translated:
        log.notice(f"{who}: published " + "; ".join(map(str, record.translated)))
    if record.problem:
        log.error(str(record.problem))


def log_withdrawn(record: Record | None) -> None:
    """Say in syslog that a guest is published no more."""
    if record and record.translated:
        log.notice(f"guest {quoted(record.guest.name)}: withdrawn")


def _say(line: str) -> None:
    """Tell whoever called, if somebody listens: a closed stderr must not change the exit code."""
    try:
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # None where the descriptor is closed
        return

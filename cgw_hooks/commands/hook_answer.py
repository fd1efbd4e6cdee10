"""The answers of a hook call: a refusal on stderr for libvirt, the rest in syslog."""

from __future__ import annotations

import sys

from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import CgwError, printable, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.publisher import Publisher


def refuse(node: Publisher, guest: Guest, error: CgwError, *, may_refuse: bool) -> int:
    """Refuse a guest by the exit code, or (by policy) only record why it is not published."""
    if may_refuse and node.config.policy.refuse_invalid:
        _say(f"cgw: {error}")
        return error.exit_code
    node.note_problem(guest, Problem.of(error))
    raise error


def log_published(record: Record) -> None:
    """Log which ports of a guest are published now, and which are withheld."""
    from cgw_hooks.host import log

    who = f"guest {quoted(record.guest.name)}"
    if record.translated:
        log.notice(f"{who}: published " + "; ".join(map(str, record.translated)))
    if record.problem:
        log.error(str(record.problem))


def log_withdrawn(record: Record | None) -> None:
    """Log that a guest is no longer published."""
    if record and record.translated:
        from cgw_hooks.host import log

        log.notice(f"guest {quoted(record.guest.name)}: withdrawn")


def _say(line: str) -> None:
    """Print a line on stderr. A closed stderr must not change the exit code."""
    try:
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # None if the descriptor is closed
        return

"""What a hook call is given, and what it says: a refusal to libvirt, the rest to syslog."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import CgwError, printable, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.publisher import Publisher


class HookCall(NamedTuple):
    """The arguments and the input of a hook: https://libvirt.org/hooks.html."""

    driver: str
    #: The guest's name.
    name: str
    operation: str
    suboperation: str
    #: Why the guest stopped, or "-".
    reason: str
    #: The domain XML; for the driver "xl", the vif's backend as ``xenstore-ls -f`` prints it.
    given: bytes


class Answer(NamedTuple):
    """The result of a hook call.

    ``exit_code`` is not 0 only if the guest is refused; ``line`` is then the reason for stderr.
    """

    exit_code: int = 0
    line: str = ""


def refuse(node: Publisher, guest: Guest, error: CgwError, *, may_refuse: bool) -> Answer:
    """Refuse a guest by the exit code, or (by policy) only record why it is not published."""
    if may_refuse and node.config.policy.refuse_invalid:
        return Answer(error.exit_code, printable(f"cgw: {error}"))
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


def log_moved(record: Record | None) -> None:
    """Log that a guest has left, and why its ports are still published."""
    if record:
        from cgw_hooks.host import log

        who = f"guest {quoted(record.guest.name)}"
        log.notice(f"{who}: has migrated; published until the registry names its node")


def log_failure(name: str, operation: str, error: Exception) -> None:
    """Log a failure to syslog, since it must not affect the guest's start or stop."""
    from cgw_hooks.host import log

    if isinstance(error, CgwError):
        log.error(f"{operation}: {error}")
        return
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
    what = f"{type(error).__name__}: {quoted(error)} at {where}"
    log.error(f"{operation}: guest {quoted(name)}: a fault of cgw-hooks itself: {what}")

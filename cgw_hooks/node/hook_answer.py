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
        from cgw_hooks.host import log

        log.notice(f"refused: {error}", event="refused", by="hook", code=error.code, **who(guest))
        return Answer(error.exit_code, printable(f"cgw: {error}"))
    node.note_problem(guest, Problem.of(error))
    raise error


def who(guest: Guest) -> dict[str, str]:
    """Return the fields of a log message that name a guest."""
    return {"guest": guest.name, "id": str(guest.key), "uuid": guest.uuid}


def log_published(record: Record, operation: str) -> None:
    """Log which ports of a guest are published now, and which are withheld."""
    from cgw_hooks.host import log

    guest = record.guest
    of_guest = {"operation": operation, "by": "hook", **who(guest)}
    if record.translated:
        shown = "; ".join(map(str, record.translated))
        message = f"guest {quoted(guest.name)}: published {shown}"
        log.notice(message, event="published", ports=shown, **of_guest)
    if record.problem:
        log.error(str(record.problem), event="problem", code=record.problem.code, **of_guest)


def log_withdrawn(record: Record | None, operation: str) -> None:
    """Log that a guest is no longer published."""
    if record and record.translated:
        from cgw_hooks.host import log

        log.notice(
            f"guest {quoted(record.guest.name)}: withdrawn",
            event="withdrawn",
            operation=operation,
            by="hook",
            ports="; ".join(map(str, record.translated)),
            **who(record.guest),
        )


def log_moved(record: Record | None, operation: str) -> None:
    """Log that a guest has left, and why its ports are still published."""
    if record:
        from cgw_hooks.host import log

        log.notice(
            f"guest {quoted(record.guest.name)}: has migrated; published until the registry names "
            "its node",
            event="migrated",
            operation=operation,
            by="hook",
            **who(record.guest),
        )


def log_failure(name: str, operation: str, error: Exception) -> None:
    """Log a failure to syslog, since it must not affect the guest's start or stop."""
    from cgw_hooks.host import log

    if isinstance(error, CgwError):
        fields = {"event": "failed", "operation": operation, "guest": name, "code": error.code}
        log.error(f"{operation}: {error}", **fields)
        return
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
    what = f"{type(error).__name__}: {quoted(error)} at {where}"
    message = f"{operation}: guest {quoted(name)}: a fault of cgw-hooks itself: {what}"
    log.error(message, event="failed", operation=operation, guest=name)

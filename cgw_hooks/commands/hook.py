"""``cgw hook DRIVER GUEST OPERATION SUBOPERATION EXTRA``: what libvirt's hook scripts call.

The straight line: arguments and XML -> operation -> Guest -> record -> one nft transaction -> exit
code. The hook must print nothing on stdout: at migrate and restore, libvirt would take the output
as the guest's XML.

This module runs for every guest of the host. So it imports inside functions what a guest without
annotation does not need, and must never load pyroute2, libvirt and asyncio.
"""

import os
import sys

from cgw_hooks.core.operations import DRIVERS, Action, action, ends_connections, may_refuse
from cgw_hooks.core.parse import domain_scan
from cgw_hooks.errors import CgwError, InvalidAnnotation, PortConflict, quoted
from cgw_hooks.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.node.publisher import Publisher

_USAGE = "usage: cgw hook DRIVER GUEST OPERATION SUBOPERATION EXTRA   (domain XML on stdin)"
_USAGE_EXIT_CODE = 2
_ARGUMENTS = 5
_XL = "xl"  # not a libvirt driver: the vif script passes other arguments


def main(arguments: list[str]) -> int:
    """Carry out one hook call; return the exit code for libvirt, which is not 0 for a refusal."""
    if len(arguments) != _ARGUMENTS or arguments[0] not in (*DRIVERS, _XL):
        sys.stderr.write(f"{_USAGE}\n")
        return _USAGE_EXIT_CODE
    driver, name, operation, suboperation, reason = arguments
    try:
        given = sys.stdin.buffer.read()
        if driver == _XL:
            from cgw_hooks.commands import xl_hook

            return xl_hook.main(name, operation, suboperation, reason, given)
        return _carry_out(driver, name, operation, reason, given)
    except Exception as error:  # noqa: BLE001  (no error must stop or kill the guest)
        _log_failure(name, operation, error)
        return 0


def _carry_out(driver: str, name: str, operation: str, reason: str, xml: bytes) -> int:
    todo = action(operation)
    uuid = domain_scan.uuid(xml)
    annotated = domain_scan.is_annotated(xml)
    recorded = os.path.exists(paths.record_file(paths.runtime_directory(), f"{driver}-{uuid}"))
    if todo == Action.NOTHING or not (annotated or recorded):
        return 0
    from cgw_hooks.commands.hook_answer import log_withdrawn
    from cgw_hooks.commands.this_node import publisher
    from cgw_hooks.core.guest import GuestKey

    node, key = publisher(), GuestKey(driver, uuid)
    if todo == Action.WITHDRAW:
        log_withdrawn(node.withdraw(key, connections_end=ends_connections(reason)))
    elif todo == Action.RELEASE:
        log_withdrawn(node.release(key, connections_end=ends_connections(reason)))
    elif not annotated:  # its annotation was removed while it ran
        log_withdrawn(node.release(key, connections_end=True))
    else:
        return _open(node, key, name, operation, xml)
    return 0


def _open(node: "Publisher", key: "GuestKey", name: str, operation: str, xml: bytes) -> int:
    """Reserve or publish what the guest's XML says, or refuse the guest."""
    from cgw_hooks.commands.hook_answer import log_published, log_withdrawn, refuse
    from cgw_hooks.core.guest import Guest

    try:
        guest = _read(node, key, name, operation, xml)
        if guest is None:  # its annotation was removed, or is only in a comment
            log_withdrawn(node.release(key, connections_end=True))
        elif action(operation) == Action.RESERVE:
            node.reserve(guest, domain_scan.digest(xml))
        else:
            log_published(node.publish(guest))
    except (InvalidAnnotation, PortConflict) as error:
        return refuse(node, Guest(key, name), error, may_refuse=may_refuse(operation))
    return 0


def _read(
    node: "Publisher", key: "GuestKey", name: str, operation: str, xml: bytes
) -> "Guest | None":
    """Return the guest; from its record if prepare has just read the same XML."""
    if operation == "started":
        from cgw_hooks.core.record import State

        record = node.state.peek(key)
        if (
            record
            and record.state is State.RESERVED
            and record.digest
            and record.digest == domain_scan.digest(xml)
            and not record.guest.leased
        ):
            return record.guest._replace(name=name)
    from cgw_hooks.sources.libvirt import read_guest

    return read_guest(node.config, key.driver, name, xml)


def _log_failure(name: str, operation: str, error: Exception) -> None:
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

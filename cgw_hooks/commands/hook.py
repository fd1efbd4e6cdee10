"""``cgw hook DRIVER GUEST OPERATION SUBOPERATION EXTRA``: what libvirt's hook scripts call.

The straight line: arguments and XML -> operation -> Guest -> record -> one nft
transaction -> exit code. Prints nothing on stdout: at migrate and restore that
would become the guest's XML.

Runs for every guest of the host: what a guest without annotation does not need
is imported where it is needed (``typing`` alone is 10 ms), and pyroute2, libvirt
and asyncio are never loaded.
"""

import os
import sys

from cgw_hooks.core.operations import DRIVERS, Action, action, ends_connections, may_refuse
from cgw_hooks.core.parse import domain_scan
from cgw_hooks.errors import CgwError, InvalidAnnotation, PortConflict, quoted
from cgw_hooks.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.node.publisher import Publisher

_USAGE = "usage: cgw hook DRIVER GUEST OPERATION SUBOPERATION EXTRA   (domain XML on stdin)"
_USAGE_EXIT_CODE = 2
_ARGUMENTS = 5
_XL = "xl"  # not libvirt's: its vif script calls in other words


def main(arguments: list[str]) -> int:
    """Carry one hook call out; the exit code is for libvirt: not 0 refuses the guest."""
    if len(arguments) != _ARGUMENTS or arguments[0] not in (*DRIVERS, _XL):
        sys.stderr.write(f"{_USAGE}\n")
        return _USAGE_EXIT_CODE
    driver, name, operation, suboperation, reason = arguments
    try:
        given = sys.stdin.buffer.read()
        if driver == _XL:
            return _carry_out_vif(name, operation, suboperation, reason, given)
        return _carry_out(driver, name, operation, reason, given)
    except Exception as error:  # noqa: BLE001  (whatever it is, it must not stop or kill the guest)
        _log_failure(name, operation, error)
        return 0


def _carry_out(driver: str, name: str, operation: str, reason: str, xml: bytes) -> int:
    todo = action(operation)
    key = f"{driver}-{domain_scan.uuid(xml)}"
    annotated = domain_scan.is_annotated(xml)
    recorded = os.path.exists(paths.record_file(paths.runtime_directory(), key))
    if todo == Action.NOTHING or not (annotated or recorded):
        return 0
    publisher = _publisher()
    if todo == Action.WITHDRAW:
        _withdraw(publisher, key, reason)
    elif todo == Action.FORGET or not annotated:
        publisher.forget(key, connections_end=ends_connections(reason))
    else:
        return _put_up(publisher, driver, name, operation, xml)
    return 0


def _carry_out_vif(name: str, operation: str, vif: str, vm_path: str, listing: bytes) -> int:
    """The same for xl's vif script, which says instead: the vif, the guest's path under /vm."""
    from cgw_hooks.commands import xl_hook

    if operation == "offline":
        return xl_hook.offline(_publisher(), vif)
    return xl_hook.online(_publisher(), name, vif, vm_path, listing.decode("utf-8", "replace"))


def _put_up(publisher: "Publisher", driver: str, name: str, operation: str, xml: bytes) -> int:
    """Claim or publish what the guest's XML says now; refuse the guest where that may be done."""
    from cgw_hooks.sources.libvirt import read_guest

    try:
        guest = read_guest(publisher.config, driver, name, xml)
        if guest is None:
            return 0
        if not guest.uuid:
            raise InvalidAnnotation(f"guest {quoted(name)}: <uuid>: is missing; define it anew")
        if action(operation) == Action.CLAIM:
            publisher.claim(guest)
            return 0
        publisher.publish(guest)
    except (InvalidAnnotation, PortConflict) as error:
        if may_refuse(operation) and publisher.config.policy.refuse_invalid:
            sys.stderr.write(f"cgw: {error}\n")
            return error.exit_code
        publisher.note_problem(f"{driver}-{domain_scan.uuid(xml)}", name, str(error))
        raise
    _log("notice", f"guest {quoted(name)}: published " + "; ".join(map(str, guest.ports)))
    return 0


def _withdraw(publisher: "Publisher", key: str, reason: str) -> None:
    record = publisher.withdraw(key, connections_end=ends_connections(reason))
    if record and record.guest.ports:
        _log("notice", f"guest {quoted(record.guest.name)}: published no more")


def _publisher() -> "Publisher":
    from cgw_hooks.host.config_file import load_config
    from cgw_hooks.node.publisher import Publisher

    return Publisher(load_config(paths.config_file()), paths.runtime_directory())


def _log_failure(name: str, operation: str, error: Exception) -> None:
    """A failure that the guest's start or stop must not notice; a person finds it in syslog."""
    if isinstance(error, CgwError):
        _log("error", f"{operation}: {error}")
        return
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
    what = f"{type(error).__name__}: {quoted(error)} at {where}"
    _log("error", f"{operation}: guest {quoted(name)}: a fault of cgw-hooks itself: {what}")


def _log(priority: str, message: str) -> None:
    from cgw_hooks.host import log

    getattr(log, priority)(message)

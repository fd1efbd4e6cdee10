"""``cgw hook DRIVER GUEST OPERATION SUBOPERATION EXTRA``: what the hook scripts call.

It reads the definition from stdin and carries out the call in this process. The hook must print
nothing on stdout: at migrate and restore, libvirt would take the output as the guest's XML.

This module runs for every guest of the host. So it imports inside functions what a guest without
annotation does not need, and must never load pyroute2, libvirt and asyncio.
"""

import os
import sys
import time

from cgw_hooks.core.operations import DRIVERS, Action, action
from cgw_hooks.core.parse import domain_scan
from cgw_hooks.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    _, name, operation, _, _ = arguments
    try:
        return _carry_out(arguments, sys.stdin.buffer.read())
    except Exception as error:  # noqa: BLE001  (no error must stop or kill the guest)
        from cgw_hooks.node.hook_answer import log_failure

        log_failure(name, operation, error)
        return 0


def _carry_out(arguments: list[str], given: bytes) -> int:
    driver, name, operation, suboperation, reason = arguments
    if driver != _XL and not _concerns_cgw(driver, operation, given):
        return 0
    began = time.monotonic()
    from cgw_hooks.commands.this_node import publisher_for_hook
    from cgw_hooks.node.hook_answer import HookCall
    from cgw_hooks.node.hook_call import answer

    made = []

    def make() -> "Publisher":
        made.append(publisher_for_hook())
        return made[0]

    call = HookCall(driver, name, operation, suboperation, reason, given)
    code, line = answer(make, call)
    if line:
        _say(line)
    if made and made[0].config.metrics:  # the agent tells Prometheus what it did not serve itself
        from cgw_hooks.host.state.served_calls import ServedCalls

        ServedCalls(made[0].state.directory).add(operation, time.monotonic() - began)
    return code


def _concerns_cgw(driver: str, operation: str, xml: bytes) -> bool:
    """Whether the call may change something; False for guests that publish nothing."""
    if action(operation) == Action.NOTHING:
        return False
    if domain_scan.is_annotated(xml):
        return True
    key = f"{driver}-{domain_scan.uuid(xml)}"
    return os.path.exists(paths.record_file(paths.runtime_directory(), key))


def _say(line: str) -> None:
    """Print a line on stderr. A closed stderr must not change the exit code."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # None if the descriptor is closed
        return

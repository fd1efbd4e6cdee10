"""Carries out one hook call.

The straight line: arguments and XML -> operation -> Guest -> record -> one nft transaction -> exit
code. It is the same in the process of ``cgw hook`` and in the agent.

Every hook call of a guest that publishes loads this module, so it must import little.
"""

from __future__ import annotations

from cgw_hooks.core.guest import XL, Guest, GuestKey
from cgw_hooks.core.operations import Action, action, ends_connections, may_refuse
from cgw_hooks.core.parse import domain_scan
from cgw_hooks.errors import CgwError, InvalidAnnotation, PortConflict, printable
from cgw_hooks.node.hook_answer import (
    Answer,
    log_failure,
    log_moved,
    log_published,
    log_withdrawn,
    refuse,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cgw_hooks.node.hook_answer import HookCall
    from cgw_hooks.node.publisher import Publisher


def answer(publisher: Callable[[], Publisher], call: HookCall) -> Answer:
    """Carry out a hook call. This raises no error: none must stop or kill the guest."""
    try:
        if call.driver == XL:
            from cgw_hooks.node import xl_hook_call

            return xl_hook_call.carry_out(publisher(), call)
        return _carry_out(publisher(), call)
    except Exception as error:  # noqa: BLE001
        log_failure(call.name, call.operation, error)
        return Answer()


def refuse_claim(node: Publisher, key: GuestKey, call: HookCall, error: CgwError) -> Answer:
    """Refuse a guest whose ports the registry has not admitted, and undo what was done for it.

    If the policy is to warn, the guest starts, and the port that another guest owns stays closed.
    """
    if not node.config.policy.refuse_invalid:
        return Answer()
    try:
        node.release(key, connections_end=True)
    except CgwError as failed:
        log_failure(call.name, call.operation, failed)
    return Answer(error.exit_code, printable(f"cgw: {error}"))


def _carry_out(node: Publisher, call: HookCall) -> Answer:
    todo = action(call.operation)
    key = GuestKey(call.driver, domain_scan.uuid(call.given))
    if todo == Action.WITHDRAW:
        if not _may_have_moved(node, key, call):
            done = node.withdraw(key, connections_end=ends_connections(call.reason))
            log_withdrawn(done, call.operation)
    elif todo == Action.RELEASE:
        _release(node, key, call)
    elif todo != Action.NOTHING:
        return _open(node, key, call)
    return Answer()


def _may_have_moved(node: Publisher, key: GuestKey, call: HookCall) -> bool:
    """Whether libvirt will only say at release that a guest has migrated to an unknown node."""
    if not node.config.registry or ends_connections(call.reason):
        return False
    from cgw_hooks.node import moves

    return moves.moving_guest(node, key) is not None


def _release(node: Publisher, key: GuestKey, call: HookCall) -> None:
    is_over = ends_connections(call.reason)
    if node.config.registry:
        from cgw_hooks.node import moves

        if moves.note(node, key, call.reason):
            log_moved(node.release(key, connections_end=False), call.operation)
            return
    log_withdrawn(node.release(key, connections_end=is_over), call.operation)


def _open(node: Publisher, key: GuestKey, call: HookCall) -> Answer:
    """Reserve or publish what the guest's XML says, or refuse the guest."""
    try:
        guest = _read(node, key, call)
        if guest is None:  # its annotation was removed, or is only in a comment
            log_withdrawn(node.release(key, connections_end=True), call.operation)
        elif action(call.operation) == Action.RESERVE:
            node.reserve(guest, domain_scan.digest(call.given))
        else:
            log_published(node.publish(guest), call.operation)
    except (InvalidAnnotation, PortConflict) as error:
        return refuse(node, Guest(key, call.name), error, may_refuse=may_refuse(call.operation))
    return Answer()


def _read(node: Publisher, key: GuestKey, call: HookCall) -> Guest | None:
    """Return the guest; from its record if prepare has just read the same XML."""
    if not domain_scan.is_annotated(call.given):
        return None
    from cgw_hooks.core.record import State, last_published

    record = node.state.peek(key) if call.operation != "prepare" else None
    if (
        call.operation == "started"
        and record
        and record.state is State.RESERVED
        and record.digest
        and record.digest == domain_scan.digest(call.given)
        and not record.guest.leased
    ):
        return record.guest._replace(name=call.name)
    from cgw_hooks.sources.libvirt import read_guest

    last = last_published(key, record, node.state.peek)
    return read_guest(node.config, key.driver, call.name, call.given, last)

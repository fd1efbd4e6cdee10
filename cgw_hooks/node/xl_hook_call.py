"""Carries out one call of Xen's vif script: ``xl GUEST online|offline VIF /vm/UUID``."""

from __future__ import annotations

from cgw_hooks.core.guest import XL, Guest, GuestKey
from cgw_hooks.core.operations import FAILED, MIGRATED
from cgw_hooks.core.parse.vif import backend_vif
from cgw_hooks.errors import InvalidAnnotation, PortConflict
from cgw_hooks.host.xenstore import parse_listing
from cgw_hooks.node import handover, moves
from cgw_hooks.node.hook_answer import Answer, log_moved, log_published, log_withdrawn, refuse
from cgw_hooks.sources import xl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.parse.vif import Vif
    from cgw_hooks.node.hook_answer import HookCall
    from cgw_hooks.node.publisher import Publisher


def carry_out(node: Publisher, call: HookCall) -> Answer:
    """Carry out one call of the vif script."""
    vif_name, vm_path = call.suboperation, call.reason
    if call.operation == "offline":
        return offline(node, vif_name, call.name)
    tree = parse_listing(call.given.decode("utf-8", "replace"))
    backend = {path.rpartition("/")[2]: value for path, value in tree.items()}
    return online(node, backend_vif(vif_name, call.name, vm_path, backend))


def offline(node: Publisher, vif_name: str, name: str = "-") -> Answer:
    """Withdraw the vif's ports. TCP flows stay: perhaps the guest has only migrated.

    ``name`` is the guest's, "-" if it is not known.
    """
    key = GuestKey(XL, vif_name)
    has_moved = bool(node.config.registry) and moves.note(node, key, _reason(name))
    released = handover.release_device(node, key)
    (log_moved if has_moved else log_withdrawn)(released, "offline")
    return Answer()


def _reason(name: str) -> str:
    """Return why a vif is removed: xl renames both domains of a migration (xl_migrate.c)."""
    if name.endswith("--migratedaway"):
        return MIGRATED
    return FAILED if name.endswith("--incoming") else "-"


def online(node: Publisher, vif: Vif) -> Answer:
    """Publish what the guest declares for the vif, or refuse the guest."""
    if xl.is_published_by_libvirt(vif.uuid, node.state.has):
        return Answer()
    try:
        guest = xl.read_vif(node.config, vif)
        if guest is not None:
            log_published(node.publish(guest, refuse_taken=True), "online")
    except (InvalidAnnotation, PortConflict) as error:
        unknown = Guest(vif.key, vif.guest, uuid=vif.uuid, device=vif.device)
        return refuse(node, unknown, error, may_refuse=True)
    return Answer()

"""Carries out one call of Xen's vif script: ``xl GUEST online|offline VIF /vm/UUID``."""

from __future__ import annotations

from cgw_hooks.core.guest import XL, Guest, GuestKey
from cgw_hooks.core.parse.vif import backend_vif
from cgw_hooks.errors import InvalidAnnotation, PortConflict
from cgw_hooks.host.xenstore import parse_listing
from cgw_hooks.node import handover
from cgw_hooks.node.hook_answer import Answer, log_published, log_withdrawn, refuse
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
        return offline(node, vif_name)
    tree = parse_listing(call.given.decode("utf-8", "replace"))
    backend = {path.rpartition("/")[2]: value for path, value in tree.items()}
    return online(node, backend_vif(vif_name, call.name, vm_path, backend))


def offline(node: Publisher, vif_name: str) -> Answer:
    """Withdraw the vif's ports. It is unknown why the vif was removed, so TCP flows stay."""
    log_withdrawn(handover.release_device(node, GuestKey(XL, vif_name)))
    return Answer()


def online(node: Publisher, vif: Vif) -> Answer:
    """Publish what the guest declares for the vif, or refuse the guest."""
    if xl.is_published_by_libvirt(vif.uuid, node.state.has):
        return Answer()
    try:
        guest = xl.read_vif(node.config, vif)
        if guest is not None:
            log_published(node.publish(guest, refuse_taken=True))
    except (InvalidAnnotation, PortConflict) as error:
        unknown = Guest(vif.key, vif.guest, uuid=vif.uuid, device=vif.device)
        return refuse(node, unknown, error, may_refuse=True)
    return Answer()

"""``cgw hook xl GUEST online|offline VIF /vm/UUID``: what the vif script calls.

Stdin is the vif's backend, as ``xenstore-ls -f`` prints it.
"""

from __future__ import annotations

from cgw_hooks.commands.hook_answer import log_published, log_withdrawn, refuse
from cgw_hooks.commands.this_node import publisher
from cgw_hooks.core.guest import XL, Guest, GuestKey
from cgw_hooks.core.parse.vif import backend_vif
from cgw_hooks.errors import InvalidAnnotation, PortConflict
from cgw_hooks.host.xenstore import parse_listing
from cgw_hooks.node import handover
from cgw_hooks.sources import xl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.parse.vif import Vif
    from cgw_hooks.node.publisher import Publisher


def main(name: str, operation: str, vif_name: str, vm_path: str, listing: bytes) -> int:
    """Carry out one call of the vif script; return the exit code, which is not 0 for a refusal."""
    node = publisher()
    if operation == "offline":
        return offline(node, vif_name)
    tree = parse_listing(listing.decode("utf-8", "replace"))
    backend = {path.rpartition("/")[2]: value for path, value in tree.items()}
    return online(node, backend_vif(vif_name, name, vm_path, backend))


def offline(node: Publisher, vif_name: str) -> int:
    """Withdraw the vif's ports. It is unknown why the vif was removed, so TCP flows stay."""
    log_withdrawn(handover.release_device(node, GuestKey(XL, vif_name)))
    return 0


def online(node: Publisher, vif: Vif) -> int:
    """Publish what the guest declares for the vif; return the exit code."""
    if xl.is_published_by_libvirt(vif.uuid, node.state.has):
        return 0
    try:
        guest = xl.read_vif(node.config, vif)
        if guest is not None:
            log_published(node.publish(guest, refuse_taken=True))
    except (InvalidAnnotation, PortConflict) as error:
        unknown = Guest(vif.key, vif.guest, uuid=vif.uuid, device=vif.device)
        return refuse(node, unknown, error, may_refuse=True)
    return 0

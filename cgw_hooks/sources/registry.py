"""Guests that the cluster's registry names: another node runs them, or did."""

from __future__ import annotations

from cgw_hooks.core import registry_value
from cgw_hooks.core.guest import REGISTRY, GuestKey
from cgw_hooks.core.policy import refuse_unpublishable
from cgw_hooks.errors import CgwError, RegistryError
from cgw_hooks.host import routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.registry_view import View


def guests(
    config: NodeConfig, view: View, uuids: Iterable[str] | None = None
) -> dict[GuestKey, Guest | CgwError | None]:
    """Return these guests (all if ``uuids`` is None) or their errors; None if none is named."""
    return {
        GuestKey(REGISTRY, uuid): _guest(config, view, uuid)
        for uuid in (view.uuids() if uuids is None else uuids)
    }


def _guest(config: NodeConfig, view: View, uuid: str) -> Guest | CgwError | None:
    entry = view.remote(uuid)
    if entry is None:
        return None
    try:
        guest = registry_value.guest(uuid, entry.value)
        _refuse_elsewhere(guest, config, entry.node)
        refuse_unpublishable(guest, config, routes.route_to)
    except CgwError as error:
        return error
    return guest


def _refuse_elsewhere(guest: Guest, config: NodeConfig, node: str) -> None:
    """Refuse an address outside the guest networks: it means another machine here than there."""
    for port in guest.ports:
        if port.target_address and not config.guest_network_of(port.target_address):
            raise RegistryError(
                guest.title,
                f"node {node} publishes {port.target_address}, which is in no guest network of "
                "this node",
                "give all nodes the same [[guest-network]] tables",
            )

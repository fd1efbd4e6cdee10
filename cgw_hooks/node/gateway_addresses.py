"""Finds addresses of the gateway that are gone: with a bridge that was made anew, for example."""

from __future__ import annotations

from _socket import if_nameindex

from cgw_hooks.core.rules import gateway_settings
from cgw_hooks.host import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.node.publisher import Publisher


def missing(publisher: Publisher) -> list[str]:
    """Return the addresses that ``cgw node up`` has set and that their devices have lost.

    An address whose device does not exist is left out: it cannot be set again yet. Raises
    ``RecordError``, and ``OSError`` if the kernel does not answer.
    """
    wanted = gateway_settings.addresses(publisher.config)
    if not wanted or not publisher.state.gateway_changes():  # it was never up
        return []
    there = {(name, address) for v in (4, 6) for address, name in addresses.devices(v).items()}
    devices = {name for _, name in if_nameindex()}
    return [
        f"{each.address} of {each.device}"
        for each in wanted
        if each.device in devices and (each.device, each.address) not in there
    ]

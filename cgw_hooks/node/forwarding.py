"""Checks whether the kernel forwards packets between a published port's clients and its guest.

It reads settings, routes and addresses, and changes nothing.
"""

from __future__ import annotations

from functools import cache
from shlex import quote

from cgw_hooks.core.problem import Problem
from cgw_hooks.host import addresses, routes, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Address, PublishedPort

_SWITCH4, _SWITCH6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"


class Forwarding:
    """One look at the node. Each setting is read once, for all ports."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._devices = cache(addresses.devices)
        self._is_on = cache(lambda device: sysctl.read(_setting(device)) != "0")
        self._guest_device = cache(self._look_for_guest_device)
        self._gateway_devices = {network.bridge for network in config.guest_networks}
        if self._gateway_devices:
            self._gateway_devices |= set(config.uplink.devices)

    def problem(self, port: PublishedPort) -> Problem | None:
        """Return why a port's packets are not forwarded, or None; also None without a target."""
        if port.target_address is None:
            return None
        if port.family == 6:  # noqa: PLR2004
            return self._problem6()
        guest_device = self._guest_device(port.target_address)
        off = [d for d in (*self._uplinks(port, guest_device), guest_device) if not self._is_on(d)]
        return self._problem4(off[0]) if off else None

    def _uplinks(self, port: PublishedPort, guest_device: str) -> list[str]:
        """Return the devices that must forward packets from a port's clients.

        Without ``uplink.devices`` it is unknown which device the clients use. Then one device is
        enough that has an address and forwards.
        """
        if self._config.uplink.devices:
            return list(self._config.uplink.devices)
        devices = self._devices(port.family)
        if not port.listen_address.is_unspecified:
            return [devices[port.listen_address]] if port.listen_address in devices else []
        outer = set(devices.values()) - {guest_device} - self._gateway_devices
        return [] if any(map(self._is_on, outer)) else sorted(outer)

    def _look_for_guest_device(self, target: Address) -> str:
        network = self._config.guest_network_of(target)
        if network:
            return network.bridge
        route = routes.route_to(target)
        return route.device if route else ""

    def _problem4(self, device: str) -> Problem:
        # The kernel checks the device that a packet came in by (IN_DEV_FORWARD in
        # net/ipv4/route.c). Writing ip_forward sets all devices, but only if its value changes.
        name = _setting(device) if sysctl.read(_SWITCH4) == "1" else _SWITCH4
        cure = f"run: sysctl -w {quote(f'{name}=1')}"
        if device in self._gateway_devices:
            cure = "run: cgw node up"
        message = f"the kernel does not forward IPv4 packets that come in by {device}"
        return Problem("forwarding", "node", message, cure)

    def _problem6(self) -> Problem | None:
        # For IPv6 the kernel checks only "all": ip6_forward in net/ipv6/ip6_output.c.
        if sysctl.read(_SWITCH6) != "0":
            return None
        cure = f"run: sysctl -w {_SWITCH6}=1"
        if any(n.subnet.version == 6 for n in self._config.guest_networks):  # noqa: PLR2004
            cure = "run: cgw node up"
        return Problem("forwarding", "node", "the kernel does not forward IPv6 packets", cure)


def _setting(device: str) -> str:
    return f"net/ipv4/conf/{device}/forwarding"

"""The changes that ``cgw node up`` makes on this host: recorded before they are made.

So ``cgw node down`` undoes exactly these changes, also after a crash.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from cgw_hooks.core.rules import gateway_settings
from cgw_hooks.host import links, policy_routes, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cgw_hooks.host.state.state import State


class GatewayChanges:
    """The recorded changes of ``cgw node up`` on this node."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._content: dict[str, Any] = {
            "addresses": [], "sysctls": {}, "isolated": [], "macs": {}, "routes": [],
        }  # fmt: skip
        self._content |= state.gateway_changes()

    def set_sysctl(self, setting: gateway_settings.Sysctl) -> bool:
        """Set a setting; False if it is set already, must not be changed, or does not exist."""
        now = sysctl.read(setting.name)
        if now is None or now == setting.value or setting.instead_of not in {"", now}:
            return False
        along = sysctl.changed_along(setting.name)
        self._content["sysctls"].setdefault(setting.name, [now, setting.value, along])
        self._save()
        sysctl.write(setting.name, setting.value)
        return True

    def add_address(self, wanted: gateway_settings.DeviceAddress) -> bool:
        """Add an address to a device; False if the device has it already."""
        if links.has_address(wanted):
            return False
        entry = [wanted.device, str(wanted.address), wanted.prefix_length, wanted.is_shared]
        if entry not in self._content["addresses"]:
            self._content["addresses"].append(entry)
            self._save()
        return links.add_address(wanted)

    def set_mac_address(self, bridge: str, mac: str) -> bool:
        """Set the MAC address of a bridge; False if it has it already."""
        now = links.mac_address(bridge)
        if now is None or now == mac:
            return False
        before, _ = self._content["macs"].get(bridge, (now, mac))
        self._content["macs"][bridge] = before, mac
        self._save()
        links.set_mac_address(bridge, mac)
        return True

    def add_route(self, wanted: gateway_settings.SteeringRoute) -> bool:
        """Add a route of answers; False if it is there already."""
        entry = wanted.to_list()
        if entry not in self._content["routes"]:
            self._content["routes"].append(entry)
            self._save()
        if policy_routes.is_set(wanted):
            return False
        policy_routes.add(wanted)
        return True

    def delete_other_routes(
        self, wanted: list[gateway_settings.SteeringRoute]
    ) -> Iterator[gateway_settings.SteeringRoute]:
        """Delete the routes that ``up`` has added for another config; yield those deleted."""
        for entry in list(self._content["routes"]):
            route = _route(entry)
            if route not in wanted:
                if policy_routes.delete(route):
                    yield route
                self._content["routes"].remove(entry)
                self._save()

    def isolate(self, bridge: str, device: str) -> bool:
        """Isolate an inter-node port; False if it is isolated already, or is no port yet."""
        if links.is_isolated(bridge, device) is not False:
            return False
        if [bridge, device] not in self._content["isolated"]:
            self._content["isolated"].append([bridge, device])
            self._save()
        links.set_isolated(device, True)
        return True

    def give_back(self) -> Iterator[str]:
        """Undo the changes, the last one first. A value that another program has changed stays."""
        for bridge, device in reversed(self._content["isolated"]):
            if links.is_isolated(bridge, device):
                links.set_isolated(device, False)
                yield f"set    {device} isolated off"
        for route in self.delete_other_routes([]):
            yield f"removed route of answers by {route.via}"
        for device, text, length, is_shared in reversed(self._content["addresses"]):
            wanted = gateway_settings.DeviceAddress(device, ip_address(text), length, is_shared)
            if links.delete_address(wanted):
                yield f"removed {text}/{length} from {device}"
        for bridge, (before, ours) in self._content["macs"].items():
            if links.mac_address(bridge) == ours:
                links.set_mac_address(bridge, before)
                yield f"set    {bridge} MAC address {before}"
        yield from self._give_back_sysctls()
        self._state.write_gateway_changes({})

    def _give_back_sysctls(self) -> Iterator[str]:
        for name, (before, ours, along) in reversed(self._content["sysctls"].items()):
            if _is_forwarding(name) and sysctl.read("net/ipv4/ip_forward") == "1":
                continue  # another program, perhaps libvirt, has made the whole host a router
            if sysctl.read(name) == ours:
                unchanged = {n: value for n, value in along.items() if sysctl.read(n) == value}
                for given_back, value in ((name, before), *unchanged.items()):
                    sysctl.write(given_back, value)
                yield f"set    {name} = {before}"

    def _save(self) -> None:
        self._state.write_gateway_changes(self._content)


def _route(entry: list[Any]) -> gateway_settings.SteeringRoute:
    subnet, mark, mask, table_number, via, device = entry
    return gateway_settings.SteeringRoute(
        ip_network(subnet), mark, mask, table_number, ip_address(via), device
    )


def _is_forwarding(name: str) -> bool:
    return name.startswith("net/ipv4/conf/") and name.endswith("/forwarding")

"""Configures this host as its guests' gateway (``cgw node up``), or undoes that (``down``).

``up`` may be repeated: it keeps what is set already and adds what is missing. It records each
change before making it, so that ``down`` undoes exactly these changes.
"""

from __future__ import annotations

from ipaddress import ip_address

from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import contents
from cgw_hooks.core.rules import gateway_settings, table
from cgw_hooks.core.rules.commands import remove
from cgw_hooks.core.rules.elements import TABLE
from cgw_hooks.errors import CgwError, InvalidConfig, LinkError
from cgw_hooks.host import links, sysctl
from cgw_hooks.node.reconcile import sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.host.state.state import State
    from cgw_hooks.node.publisher import Publisher


def up(publisher: Publisher) -> Iterator[str]:
    """Configure the node as its config says; yield one line per change. Raises ``CgwError``."""
    config = publisher.config
    if not config.guest_networks:
        raise InvalidConfig(
            "guest-network", "it is missing", "add it to cgw.toml, with the subnet to serve"
        )
    for bridge in links.missing_devices(network.bridge for network in config.guest_networks):
        raise LinkError(bridge, "no such device", "make the bridge, then run: cgw node up")
    publisher.state.mark_gateway(down=False)
    # The rules come first, since the gateway address must not exist without its ARP filter. No
    # hypervisor is asked: libvirt may not run yet.
    report = sync(publisher, drivers=())
    for record in report.published:
        yield f"published {record.guest.name}"
    with publisher.state.locked():
        changes = _Changes(publisher.state)
        for setting in gateway_settings.sysctls(config):
            if changes.set_sysctl(setting):
                yield f"set    {setting.name} = {setting.value}"
        for wanted in gateway_settings.addresses(config):
            if changes.add_address(wanted):
                yield f"added  {wanted.address}/{wanted.prefix_length} to {wanted.device}"
        yield from _isolate(changes, config)
    yield from _missing_devices(config)
    if report.problems:
        raise _Incomplete(report.problems)


class _Incomplete(CgwError):
    """The gateway is configured, but not every guest could be published."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("node", "; ".join(map(str, problems)))

    def __str__(self) -> str:
        return self.message


def _isolate(changes: _Changes, config: NodeConfig) -> Iterator[str]:
    for bridge, device in gateway_settings.isolated_ports(config):
        if changes.isolate(bridge, device):
            yield f"set    {device} isolated (full-mesh)"


def _missing_devices(config: NodeConfig) -> Iterator[str]:
    internode = [d for network in config.guest_networks for d in network.internode_devices]
    ports = gateway_settings.isolated_ports(config)
    for device in links.missing_devices({*internode} - {device for _, device in ports}):
        yield f"note   {device}: no such device yet; the filter holds for it when it comes"
    for bridge, device in ports:
        if links.is_isolated(bridge, device) is None:
            yield f"note   {device}: no port of {bridge} yet; when it is, run again: cgw node up"
    for device in links.missing_devices(config.uplink.devices):
        yield f"note   {device}: no such device yet; when it is there, run again: cgw node up"


def down(publisher: Publisher) -> Iterator[str]:
    """Undo the changes of ``up``, and withdraw the guests of the guest networks.

    Guests on other networks, for example libvirt's own, stay published. Until ``up``, no sync makes
    this node a gateway again (``config_in_force``). Raises ``CgwError``.
    """
    with publisher.state.locked():
        publisher.state.mark_gateway(down=True)
        yield from _Changes(publisher.state).give_back()
        records, unreadable = publisher.state.all()
        gone = [r for r in records.values() if _is_of_guest_network(r.guest, publisher.config)]
        kept = [record for record in records.values() if record not in gone]
        for record in gone:
            if record.guest.ports:
                yield f"withdrew guest {record.guest.name}"
        names = [name for name in table.NAMES if name != TABLE or not kept]
        publisher.nft.apply("".join(map(remove, names)))
        if kept:
            publisher.config = publisher.config._replace(guest_networks=())
            publisher.write_ruleset(contents(kept))
        yield f"removed tables {', '.join(names)}"
        publisher.firewall.settle(kept, records.values())
        for record in gone:
            publisher.state.remove(record.key, record)
        for key in unreadable:
            publisher.state.remove(key, None)
        if not kept:
            publisher.state.clear()


def withdraw_all(publisher: Publisher) -> Iterator[str]:
    """Withdraw every guest, and undo the changes of ``up``. ``cgw uninstall`` calls this."""
    with publisher.state.locked():
        yield from _Changes(publisher.state).give_back()
        records, _ = publisher.state.all()
        publisher.nft.apply("".join(map(remove, table.NAMES)))
        for record in records.values():
            if record.guest.ports:
                yield f"withdrew guest {record.guest.name}"
        yield f"removed tables {', '.join(table.NAMES)}"
        publisher.firewall.settle((), records.values())
        publisher.state.clear()


def _is_of_guest_network(guest: Guest, config: NodeConfig) -> bool:
    targets = [port.target_address for port in guest.ports]
    return (
        guest.is_remote
        or not targets
        or any(target and config.guest_network_of(target) for target in targets)
    )


def _is_forwarding(name: str) -> bool:
    return name.startswith("net/ipv4/conf/") and name.endswith("/forwarding")


class _Changes:
    """The recorded changes of ``up`` on this node."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._content: dict[str, Any] = {"addresses": [], "sysctls": {}, "isolated": []}
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
        for device, text, length, is_shared in reversed(self._content["addresses"]):
            wanted = gateway_settings.DeviceAddress(device, ip_address(text), length, is_shared)
            if links.delete_address(wanted):
                yield f"removed {text}/{length} from {device}"
        for name, (before, ours, along) in reversed(self._content["sysctls"].items()):
            if _is_forwarding(name) and sysctl.read("net/ipv4/ip_forward") == "1":
                continue  # another program, perhaps libvirt, has made the whole host a router
            if sysctl.read(name) == ours:
                unchanged = {n: value for n, value in along.items() if sysctl.read(n) == value}
                for given_back, value in ((name, before), *unchanged.items()):
                    sysctl.write(given_back, value)
                yield f"set    {name} = {before}"
        self._state.write_gateway_changes({})

    def _save(self) -> None:
        self._state.write_gateway_changes(self._content)

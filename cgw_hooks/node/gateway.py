"""Configures this host as its guests' gateway (``cgw node up``), or undoes that (``down``).

``up`` may be repeated: it keeps what is set already and adds what is missing. It records each
change before making it, so that ``down`` undoes exactly these changes.
"""

from __future__ import annotations

from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import contents
from cgw_hooks.core.rules import bans, gateway_settings, table
from cgw_hooks.core.rules.commands import remove
from cgw_hooks.core.rules.names import TABLE
from cgw_hooks.errors import CgwError, InvalidConfig, LinkError, ReplicationError
from cgw_hooks.host import links
from cgw_hooks.node import replication, takeover
from cgw_hooks.node.gateway_changes import GatewayChanges
from cgw_hooks.node.reconcile import sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

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
        yield from _configure(GatewayChanges(publisher.state), config)
        yield from takeover.restore(publisher.state)
    yield from _missing_devices(config)
    problems = report.problems
    try:
        yield from replication.start(publisher)
    except ReplicationError as error:
        problems = [*problems, Problem.of(error)]
    if problems:
        raise _Incomplete(problems)


def _configure(changes: GatewayChanges, config: NodeConfig) -> Iterator[str]:
    for setting in gateway_settings.sysctls(config):
        if changes.set_sysctl(setting):
            yield f"set    {setting.name} = {setting.value}"
    for bridge, mac in gateway_settings.bridge_macs(config).items():
        if changes.set_mac_address(bridge, mac):
            yield f"set    {bridge} MAC address {mac}"
    for wanted in gateway_settings.addresses(config):
        if changes.add_address(wanted):
            yield f"added  {wanted.address}/{wanted.prefix_length} to {wanted.device}"
    yield from _isolate(changes, config)
    yield from _route_answers(changes, config)


class _Incomplete(CgwError):
    """The gateway is configured, but not every guest could be published."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("node", "; ".join(map(str, problems)))

    def __str__(self) -> str:
        return self.message


def _isolate(changes: GatewayChanges, config: NodeConfig) -> Iterator[str]:
    for bridge, device in gateway_settings.isolated_ports(config):
        if changes.isolate(bridge, device):
            yield f"set    {device} isolated (full-mesh)"


def _route_answers(changes: GatewayChanges, config: NodeConfig) -> Iterator[str]:
    wanted = list(gateway_settings.steering_routes(config))
    # First, since a node with the number of a former one has its routing table.
    for route in changes.delete_other_routes(wanted):
        yield f"removed route of answers by {route.via}"
    for route in wanted:
        if changes.add_route(route):
            yield f"added  route of answers by {route.via}"


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
        yield from _withdraw_gateway(publisher.state)
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
        yield from _withdraw_gateway(publisher.state)
        records, _ = publisher.state.all()
        publisher.nft.apply("".join(map(remove, (*table.NAMES, bans.TABLE))))
        for record in records.values():
            if record.guest.ports:
                yield f"withdrew guest {record.guest.name}"
        yield f"removed tables {', '.join(table.NAMES)}"
        publisher.firewall.settle((), records.values())
        publisher.state.clear()


def _withdraw_gateway(state: State) -> Iterator[str]:
    yield from replication.stop(state)
    yield from takeover.give_back_all(state)
    yield from GatewayChanges(state).give_back()


def _is_of_guest_network(guest: Guest, config: NodeConfig) -> bool:
    targets = [port.target_address for port in guest.ports]
    return (
        guest.is_remote
        or not targets
        or any(target and config.guest_network_of(target) for target in targets)
    )

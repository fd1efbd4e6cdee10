"""Lifting: frames for a guest of this node pass through this node's IP layer.

Their destination MAC address becomes that of this node's bridge, before the bridge forwards them.
"""

from __future__ import annotations

from ipaddress import IPv6Network

from cgw_hooks.core.rules.commands import ADDRESS_TYPE, IP, devices, listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig, RemoteNode
    from cgw_hooks.core.published_port import Network
    from cgw_hooks.core.rules.commands import Table

_PRIORITY = -300  # before br_netfilter (0), as the ARP filter
_LINK_LOCAL = IPv6Network("fe80::/10")
_SIZE = 65536
#: After this time a guest that is silent is thought to be where its record is.
_AWAY = "timeout 10m;"


def outside(subnet: Network) -> str:
    """Return a match, without its field, for addresses that are not on the guests' link."""
    on_link = [subnet] if subnet.version == 4 else [subnet, _LINK_LOCAL]  # noqa: PLR2004
    return f"!= {listed(on_link)}"


def add_to(table: Table, config: NodeConfig) -> None:
    """Add the chain that lifts frames to the bridge's table."""
    for text in _sets():
        table.add_set(text)
    table.add_chain("lift", f"type filter hook prerouting priority {_PRIORITY}")
    table.add_rules(_away_rules(config))
    for network in config.steered_networks:
        table.add_rules(_lift_rules(network, config.remote_nodes))


def removal(table: str) -> str:
    """Return text that removes the chain and its sets from the bridge's table, if it has them."""
    lines = [f"add table {table}"]
    lines += [f"{command} chain {table} lift" for command in ("add", "flush", "delete")]
    for text in _sets():
        name = text.split()[1]
        lines += [f"add set {table} {text.removeprefix('set ')}", f"delete set {table} {name}"]
    return "\n".join(lines) + "\n"


def _sets() -> Iterator[str]:
    for family, address_type in ADDRESS_TYPE.items():
        yield f"set here{family} {{ type {address_type}; }}"
    yield f"set away {{ type ether_addr; flags dynamic,timeout; size {_SIZE}; {_AWAY} }}"


def _away_rules(config: NodeConfig) -> Iterator[str]:
    """Yield rules that learn which guests are on another node, as the bridge itself learns it.

    While a guest migrates, both nodes have its record. A node that lifted the frames to a guest
    that is not there would come between the entry node and the guest's node.
    """
    internode = devices({d: None for n in config.steered_networks for d in n.internode_devices})
    macs = [mac for node in config.remote_nodes for mac in node.bridge_macs]
    if macs:
        yield f"lift iifname {internode} ether saddr != {listed(macs)} add @away {{ ether saddr }}"
        yield f"lift iifname != {internode} ether saddr @away delete @away {{ ether saddr }}"


def _lift_rules(network: GuestNetwork, nodes: Iterable[RemoteNode]) -> Iterator[str]:
    macs = [mac for node in nodes for mac in node.bridge_macs]
    if not macs:
        return
    family, subnet = network.subnet.version, network.subnet
    ip, internode = IP[family], devices(network.internode_devices)
    lift = f"ether daddr set {network.bridge_mac} meta pkttype set host"
    yield (
        f"lift iifname {internode} ether saddr {listed(macs)} ether daddr != @away "
        f"{ip} daddr @here{family} {ip} saddr {outside(subnet)} {lift}"
    )
    # A guest that has just moved here still sends to the MAC address of its former node.
    yield (
        f"lift iifname != {internode} ether daddr {listed(macs)} "
        f"{ip} saddr {subnet} {ip} daddr {outside(subnet)} {lift}"
    )

"""Lifting: frames for a guest of this node pass through this node's IP layer.

Their destination MAC address becomes that of this node's bridge, before the bridge forwards them.
"""

from __future__ import annotations

from ipaddress import IPv6Network

from cgw_hooks.core.rules.commands import ADDRESS_TYPE, IP, devices, listed
from cgw_hooks.core.rules.return_path import marks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig
    from cgw_hooks.core.published_port import Network
    from cgw_hooks.core.rules.commands import Table

_PRIORITY = -300  # before br_netfilter (0), as the ARP filter
_LINK_LOCAL = IPv6Network("fe80::/10")
_CHAINS = ("lift_arriving", "lift_leaving")
_SIZE = 65536
#: After this time a guest that is silent is thought to be where its record is.
_AWAY = "timeout 10m;"


def outside(subnet: Network) -> str:
    """Return a match, without its field, for addresses that are not on the guests' link."""
    on_link = [subnet] if subnet.version == 4 else [subnet, _LINK_LOCAL]  # noqa: PLR2004
    return f"!= {listed(on_link)}"


def add_to(table: Table, config: NodeConfig) -> None:
    """Add the chains that lift frames to the bridge's table."""
    for text in _sets():
        table.add_set(text)
    table.add_chain("lift", f"type filter hook prerouting priority {_PRIORITY}")
    for chain in _CHAINS:
        table.add_chain(chain)
    macs = [mac for node in config.remote_nodes for mac in node.bridge_macs]
    if macs:
        table.add_rules(_common_rules(config, listed(macs)))
        for network in config.steered_networks:
            table.add_rules(_lift_rules(network))
            table.add_rules(_output_rules(network, config.mark_mask))


def removal(table: str) -> str:
    """Return text that removes the chain and its sets from the bridge's table, if it has them."""
    lines = [f"add table {table}"]
    for command in ("add", "flush", "delete"):  # all are flushed before one that they name goes
        lines += [f"{command} chain {table} {chain}" for chain in ("lift", *_CHAINS)]
    for text in _sets():
        name = text.split()[1]
        lines += [f"add set {table} {text.removeprefix('set ')}", f"delete set {table} {name}"]
    return "\n".join(lines) + "\n"


def _sets() -> Iterator[str]:
    for family, address_type in ADDRESS_TYPE.items():
        yield f"set here{family} {{ type {address_type}; }}"
    yield f"set away {{ type ether_addr; flags dynamic,timeout; size {_SIZE}; {_AWAY} }}"


def _common_rules(config: NodeConfig, macs: str) -> Iterator[str]:
    """Yield rules that part frames by where they come from, and learn which guests are away.

    They learn it as the bridge itself learns it. While a guest migrates, both nodes have its
    record. A node that lifted the frames to a guest that is not there would come between the entry
    node and the guest's node.
    """
    internode = devices({d: None for n in config.steered_networks for d in n.internode_devices})
    yield f"lift iifname {internode} goto lift_arriving"
    yield "lift ether saddr @away delete @away { ether saddr }"
    yield f"lift ether daddr {macs} goto lift_leaving"
    yield f"lift_arriving ether saddr != {macs} update @away {{ ether saddr }} accept"
    yield "lift_arriving ether daddr @away accept"


def _output_rules(network: GuestNetwork, mask: int) -> Iterator[str]:
    """Yield the rule that drops a lifted packet whose guest has just left for another node.

    That node would take this one for the entry node, and send the answers here. The client sends
    the packet again.
    """
    ip, internode = IP[network.subnet.version], devices(network.internode_devices)
    yield f"output oifname {internode} {marks.is_lifted(mask)} {ip} daddr {network.subnet} drop"


def _lift_rules(network: GuestNetwork) -> Iterator[str]:
    family, subnet = network.subnet.version, network.subnet
    ip = IP[family]
    lift = f"ether daddr set {network.bridge_mac} meta pkttype set host accept"
    yield (
        f"lift_arriving {ip} daddr @here{family} {ip} daddr {subnet} "
        f"{ip} saddr {outside(subnet)} {lift}"
    )
    # A guest that has just moved here still sends to the MAC address of its former node.
    yield f"lift_leaving {ip} saddr {subnet} {ip} daddr {outside(subnet)} {lift}"

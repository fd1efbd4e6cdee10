"""The nodes of the cluster, from cgw.toml: ``[[remote-node]]``, marks, MAC addresses, failover."""

from __future__ import annotations

from cgw_hooks.core import conntrackd_config
from cgw_hooks.core.node_config import CT_SYNC, FULL_NAT, RemoteNode
from cgw_hooks.core.parse import fields
from cgw_hooks.core.rules.return_path import marks
from cgw_hooks.errors import InvalidConfig, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig
    from cgw_hooks.core.parse.config_table import Table
    from cgw_hooks.core.published_port import Address, Network

_HEXADECIMAL = "0x"
_MARK_BITS = 32  # of a packet mark and of a conntrack mark: __u32 in the kernel
#: Fewer bits could not tell the nodes of a cluster apart.
_FEWEST_BITS = 4
#: Locally administered (IEEE 802), then "c": no vendor has such addresses.
_MAC_PREFIX = "02:63"


def with_nodes(config: NodeConfig, root: Table) -> NodeConfig:
    """Add to a config what the tables of its document say of nodes. Raises ``InvalidConfig``."""
    node, failover = root.table("node"), root.table("failover")
    mask = node.text("mark-mask", config.mark_mask, _parse_mask)
    networks = tuple(_with_mac(network, config.guest_networks) for network in config.guest_networks)
    config = config._replace(
        mark_mask=mask, guest_networks=networks, replicates=failover.flag("replicate")
    )
    nodes: dict[str, RemoteNode] = {}
    for table in root.tables("remote-node"):
        found = _remote_node(table, config)
        if found.name in nodes or found.name == config.name:
            who = "is this node" if found.name == config.name else "has an entry already"
            raise InvalidConfig(table.path("name"), f"{quoted(found.name)} {who}", "remove one")
        nodes[found.name] = found
    config = config._replace(remote_nodes=tuple(nodes.values()))
    refuse_ambiguous(config)
    _refuse_mixed(config)
    _refuse_unprotected(config)
    _refuse_two_steered(config)
    return config


def _refuse_unprotected(config: NodeConfig) -> None:
    """Refuse replication if nothing tells the other nodes from guests (``rules/sync_filter``)."""
    for number, network in enumerate(config.guest_networks, start=1):
        if conntrackd_config.is_needed(config) and not network.internode_devices:
            raise InvalidConfig(
                f"guest-network[{number}].internode-devices",
                "it is missing, and failover.replicate needs it",
                "name the devices that lead to the other nodes",
            )


def refuse_ambiguous(config: NodeConfig) -> None:
    """Refuse nodes that the return paths could not tell apart. Raises ``InvalidConfig``."""
    for network in config.steered_networks:
        members = Members(network, config.mark_mask)
        for node in config.remote_nodes:
            where = f"remote-node {quoted(node.name)}"
            if node.address_in(network.subnet) is None:
                raise InvalidConfig(
                    where, f"node-address in {network.subnet} is missing", "add it to the list"
                )
            refuse_no_uplink(network, node, where)
            members.refuse(node, where)
            members.add(node)
        members.refuse_nobody()


def refuse_no_uplink(network: GuestNetwork, node: RemoteNode, where: str) -> None:
    """Refuse a node whose flows could not be told from this node's own (`conntrackd_config`).

    Raises ``InvalidConfig``.
    """
    versions = {address.version for address in node.uplink_addresses}
    if network.return_path == CT_SYNC and network.subnet.version not in versions:
        raise InvalidConfig(
            where,
            f"its uplink-address of IPv{network.subnet.version} is missing, and ct-sync needs it",
            "name all addresses where clients reach the node",
        )


class Members:
    """The nodes of one guest network, which its rules must be able to tell apart.

    Return paths know a node by its number and its MAC addresses; FULL-NAT by its address.
    """

    def __init__(self, network: GuestNetwork, mask: int) -> None:
        self._network = network
        self._mask = mask
        self._is_steered = network.return_path != FULL_NAT
        self._numbers = {self._number(network.node_address): "this node"}
        self._macs = {network.bridge_mac: "this node"}

    def _number(self, address: Address) -> int:
        return marks.number(address, self._mask) if self._is_steered else int(address)

    def add(self, node: RemoteNode) -> None:
        """Add a node."""
        address = node.address_in(self._network.subnet)
        if address:
            self._numbers[self._number(address)] = node.name
        self._macs |= dict.fromkeys(node.bridge_macs, node.name)

    def refuse(self, node: RemoteNode, where: str) -> None:
        """Refuse a node that looks like another one. Raises ``InvalidConfig``."""
        address = node.address_in(self._network.subnet)
        if address:
            self._refuse_address(address, where)
        for mac in node.bridge_macs if self._is_steered else ():
            if mac in self._macs:
                raise InvalidConfig(
                    where, f"{mac} is the MAC address of {self._macs[mac]}", "give each its own"
                )

    def _refuse_address(self, address: Address, where: str) -> None:
        network, number = self._network, self._number(address)
        if address == network.gateway_address or address in unusable(network.subnet):
            raise InvalidConfig(
                where, f"{address} is no address of a single node", "give the node its own address"
            )
        if number in self._numbers:
            last_bits = "the last bits of " if self._is_steered else ""
            raise InvalidConfig(
                where,
                f"{last_bits}{address} are those of {self._numbers[number]}",
                "give node.mark-mask more bits, or the node another address",
            )
        if number == 0:
            raise _nobody(where.partition(" ")[2])

    def refuse_nobody(self) -> None:
        """Refuse this node if its number means no node. Raises ``InvalidConfig``."""
        if 0 in self._numbers:
            raise _nobody(self._numbers[0])


def _nobody(who: str) -> InvalidConfig:
    return InvalidConfig(
        "node.mark-mask",
        f"the last bits of the address of {who} are 0, which means no node",
        "give the mask more bits, or the node another address",
    )


def unusable(subnet: Network) -> set[Address]:
    """Return the network address and the broadcast address; RFC 3021 has none in a /31."""
    has_both = subnet.version == 4 and subnet.prefixlen < 31  # noqa: PLR2004
    return {subnet.network_address, subnet.broadcast_address} if has_both else set()


def _refuse_mixed(config: NodeConfig) -> None:
    """Refuse ct-sync beside another return path: conntrackd treats all flows alike.

    Either it makes the kernel of each node track the flows of the others, or it keeps them.
    """
    paths = [network.return_path for network in config.guest_networks]
    if config.is_synced and len(set(paths)) > 1:
        number = next(i for i, path in enumerate(paths, start=1) if path != CT_SYNC)
        raise InvalidConfig(
            f"guest-network[{number}].return-path",
            f'another guest network has "{CT_SYNC}"',
            f'give all of them "{CT_SYNC}", or none',
        )


def _refuse_two_steered(config: NodeConfig) -> None:
    """Refuse what conntrackd cannot filter: see ``conntrackd_config``."""
    six = [s for s in conntrackd_config.steered_subnets(config) if s.version == 6]  # noqa: PLR2004
    if conntrackd_config.is_needed(config) and len(six) > 1:
        raise InvalidConfig(
            "guest-network.return-path",
            f"{six[0]} and {six[1]} are both steered; conntrackd can leave out one IPv6 network",
            'give the other one return-path = "full-nat"',
        )


def _remote_node(table: Table, config: NodeConfig) -> RemoteNode:
    addresses = table.texts("node-address", fields.parse_guest_address)
    if not addresses:
        raise InvalidConfig(table.path("node-address"), "it is missing", "add it")
    node = RemoteNode(
        table.text("name", None, fields.parse_name),
        addresses,
        table.texts("uplink-address", fields.parse_guest_address),
        table.texts("bridge-mac", fields.parse_mac),
    )
    return node if node.bridge_macs else node._replace(bridge_macs=derived_macs(node, config))


def derived_macs(node: RemoteNode, config: NodeConfig) -> tuple[str, ...]:
    """Return the MAC addresses of a node's guest bridges if its config names none."""
    networks = (_naming_network(n.bridge, config.guest_networks) for n in config.guest_networks)
    found = (node.address_in(network.subnet) for network in networks)
    return tuple(dict.fromkeys(_derived_mac(address) for address in found if address))


def _with_mac(network: GuestNetwork, networks: Iterable[GuestNetwork]) -> GuestNetwork:
    """Return the network with its bridge's MAC address, if a return path needs it."""
    same = [other for other in networks if other.bridge == network.bridge]
    given = {other.bridge_mac for other in same if other.bridge_mac}
    if len(given) > 1:
        raise InvalidConfig(
            "guest-network.bridge-mac",
            f"{quoted(network.bridge)} has two: {' and '.join(sorted(given))}",
            "give one to a bridge",
        )
    if given:
        return network._replace(bridge_mac=given.pop())
    if all(other.return_path == FULL_NAT for other in same):
        return network
    naming = _naming_network(network.bridge, networks)
    return network._replace(bridge_mac=_derived_mac(naming.node_address))


def _naming_network(bridge: str, networks: Iterable[GuestNetwork]) -> GuestNetwork:
    """Return the network whose node address names a bridge, on each node the same one."""
    same = (network for network in networks if network.bridge == bridge)
    return min(same, key=lambda network: (network.subnet.version, int(network.subnet[0])))


def _derived_mac(address: Address) -> str:
    """Return the MAC address that stands for a node address: its last four bytes are those."""
    return ":".join([_MAC_PREFIX, *(f"{byte:02x}" for byte in address.packed[-4:])])


def _parse_mask(text: str) -> int:
    cure = "give neighbouring bits, at least four, like 0xff000000"
    try:
        mask = int(text, 16) if text.startswith(_HEXADECIMAL) else 0
    except ValueError:
        raise ValueError(cure) from None
    lowest = mask & -mask
    bits = mask.bit_count()
    if bits < _FEWEST_BITS or mask >> _MARK_BITS or mask + lowest != lowest << bits:
        raise ValueError(cure)
    return mask

"""The addresses and kernel settings that a node needs to be its guests' gateway."""

from __future__ import annotations

from cgw_hooks.core import conntrackd_config
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.node_config import STEER
from cgw_hooks.core.rules.return_path import marks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Address, Network

#: "cgw" in ASCII: nobody else uses such numbers of routing tables. Each guest network has as many
#: as it has nodes.
_FIRST_TABLE, _TABLE_BITS = 0x63677700, 16


class DeviceAddress(NamedTuple):
    """An address that a device must have."""

    device: str
    address: Address
    prefix_length: int
    #: All nodes have this address, so duplicate address detection (RFC 4862) must be off.
    is_shared: bool


class SteeringRoute(NamedTuple):
    """Where the answers of guests with a mark are routed: a rule, and the table that it names.

    The table has one route: the default route through ``via``, the node where the clients have
    come in.
    """

    subnet: Network
    mark: int
    mask: int
    table: int
    via: Address
    device: str

    def to_list(self) -> list[Any]:
        """Return the route for JSON."""
        return [str(self.subnet), self.mark, self.mask, self.table, str(self.via), self.device]


class Sysctl(NamedTuple):
    """A setting under /proc/sys, with the value that it must have."""

    name: str
    value: str
    #: The setting is changed only if it has this value now; empty: always.
    instead_of: str = ""


def addresses(config: NodeConfig) -> Iterator[DeviceAddress]:
    """Yield the node's addresses on its guest bridges.

    The node address comes first, so that the kernel makes it the bridge's primary address.
    """
    for network in config.guest_networks:
        length = network.subnet.prefixlen
        yield DeviceAddress(network.bridge, network.node_address, length, is_shared=False)
        yield DeviceAddress(network.bridge, network.gateway_address, length, is_shared=True)


def bridge_macs(config: NodeConfig) -> dict[str, str]:
    """Return the MAC address that each guest bridge must have, if it must have one.

    A bridge without one of its own takes that of a port (br_stp_recalculate_bridge_id in
    net/bridge/br_stp_if.c), so it would change with its guests.
    """
    return {n.bridge: n.bridge_mac for n in config.guest_networks if n.bridge_mac}


def steering_routes(config: NodeConfig) -> Iterator[SteeringRoute]:
    """Yield the routes by which answers return to the other nodes."""
    for index, network in enumerate(config.guest_networks):
        if network.return_path != STEER:
            continue
        for node in config.remote_nodes:
            via = node.address_in(network.subnet)
            if via:
                number = marks.number(via, config.mark_mask)
                yield SteeringRoute(
                    network.subnet,
                    marks.mark(via, config.mark_mask),
                    config.mark_mask,
                    _FIRST_TABLE + (index << _TABLE_BITS) + number % (1 << _TABLE_BITS),
                    via,
                    network.bridge,
                )


def isolated_ports(config: NodeConfig) -> list[tuple[str, str]]:
    """Return the (bridge, inter-node device) pairs whose port flag "isolated" must be on.

    A bridge never passes a frame from one isolated port to another (br_skb_isolated in
    net/bridge/br_private.h, since Linux 4.18). This is split horizon: a full mesh of nodes has
    no loop and needs no spanning tree.
    """
    meshes = [network for network in config.guest_networks if network.full_mesh]
    pairs = [(network.bridge, d) for network in meshes for d in network.internode_devices]
    return list(dict.fromkeys(pairs))


#: A node that gets to know a connection in its middle has not seen its windows. A segment outside
#: of them would be "invalid", and an answer of a steered guest would ask all other nodes.
_LIBERAL = "net/netfilter/nf_conntrack_tcp_be_liberal"
#: With ct-sync the entry node sees no acknowledgement of what the client has sent last, and would
#: forget a silent connection after five minutes. RFC 5382 section 5 asks for 2 hours 4 minutes.
_SILENT_CONNECTION = "7440"
_SHORTENED_TIMEOUTS = ("timeout_unacknowledged", "timeout_max_retrans")


def sysctls(config: NodeConfig) -> Iterator[Sysctl]:
    """Yield the kernel settings that a gateway's devices need.

    Source: Documentation/networking/ip-sysctl.rst. For IPv4, the kernel checks the forwarding
    setting of the device that a packet came in by; for IPv6, only the setting of "all".
    send_redirects is on if it is on for "all" or for the device.
    """
    four = {network.bridge for network in config.guest_networks if network.subnet.version == 4}  # noqa: PLR2004
    six = {network.bridge for network in config.guest_networks if network.subnet.version == 6}  # noqa: PLR2004
    if four:
        yield Sysctl("net/ipv4/conf/all/send_redirects", "0")
        if not config.uplink.devices:  # answers to guests may come in by any device
            yield Sysctl("net/ipv4/ip_forward", "1")
    for device in sorted(four | (set(config.uplink.devices) if four else set())):
        yield Sysctl(f"net/ipv4/conf/{device}/forwarding", "1")
    steered = sorted({network.bridge for network in config.steered_networks})
    for bridge in steered:
        # The guests must learn the bridge's new MAC address (ip-sysctl.rst).
        yield Sysctl(f"net/ipv4/conf/{bridge}/arp_notify", "1")
        yield Sysctl(f"net/ipv6/conf/{bridge}/ndisc_notify", "1")
    for bridge in sorted(four):
        # The node must not tell a guest a shorter way to another node's addresses.
        yield Sysctl(f"net/ipv4/conf/{bridge}/send_redirects", "0")
        # 2 is loose mode (RFC 3704 section 2.4): a guest may answer a packet that came in by
        # another node.
        yield Sysctl(f"net/ipv4/conf/{bridge}/rp_filter", "2")
    if config.steered_networks or conntrackd_config.is_needed(config):
        yield Sysctl(_LIBERAL, "1")
    for timeout in _SHORTENED_TIMEOUTS if config.is_synced else ():
        yield Sysctl(f"net/netfilter/nf_conntrack_tcp_{timeout}", _SILENT_CONNECTION)
    if six:
        for device in sorted(config.uplink.devices):
            # A forwarding host ignores router advertisements unless this is 2. The value 0 is
            # the administrator's choice, and stays.
            yield Sysctl(f"net/ipv6/conf/{device}/accept_ra", "2", instead_of="1")
        yield Sysctl("net/ipv6/conf/all/forwarding", "1")

"""What a node needs to be its guests' gateway: addresses on the bridges, kernel settings."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Address


class DeviceAddress(NamedTuple):
    """An address that a device gets."""

    device: str
    address: Address
    prefix_length: int
    #: Every node has it: duplicate address detection (RFC 4862) would find the others.
    is_shared: bool


class Sysctl(NamedTuple):
    """A setting under /proc/sys, with the value that it gets."""

    name: str
    value: str
    #: Only where it has this value now; empty: whatever it has.
    instead_of: str = ""


def addresses(config: NodeConfig) -> Iterator[DeviceAddress]:
    """The node's addresses on its guest bridges: its own first, so that it is the primary one."""
    for network in config.guest_networks:
        length = network.subnet.prefixlen
        yield DeviceAddress(network.bridge, network.node_address, length, is_shared=False)
        yield DeviceAddress(network.bridge, network.gateway_address, length, is_shared=True)


def isolated_ports(config: NodeConfig) -> list[tuple[str, str]]:
    """The (bridge, inter-node device) pairs whose port flag "isolated" must be on.

    A bridge never passes a frame from one isolated port to another
    (br_skb_isolated in net/bridge/br_private.h, since Linux 4.18): split horizon, so
    that a full mesh of nodes has no loop, and needs no spanning tree.
    """
    meshes = [network for network in config.guest_networks if network.full_mesh]
    pairs = [(network.bridge, d) for network in meshes for d in network.internode_devices]
    return list(dict.fromkeys(pairs))


def sysctls(config: NodeConfig) -> Iterator[Sysctl]:
    """What the devices of a gateway need of the kernel.

    Source: Documentation/networking/ip-sysctl.rst. Forwarding is asked of the device
    that a packet came in by; of IPv6, it can only be asked of all at once. For
    send_redirects the kernel takes "all" or the device, whichever is on.
    """
    four = {network.bridge for network in config.guest_networks if network.subnet.version == 4}  # noqa: PLR2004
    six = {network.bridge for network in config.guest_networks if network.subnet.version == 6}  # noqa: PLR2004
    if four:
        yield Sysctl("net/ipv4/conf/all/send_redirects", "0")
        if not config.uplink.devices:  # answers to guests may come in by any
            yield Sysctl("net/ipv4/ip_forward", "1")
    for device in sorted(four | (set(config.uplink.devices) if four else set())):
        yield Sysctl(f"net/ipv4/conf/{device}/forwarding", "1")
    for bridge in sorted(four):
        # A guest's packets to another node's addresses are not to be "improved".
        yield Sysctl(f"net/ipv4/conf/{bridge}/send_redirects", "0")
        # 2 is loose (RFC 3704 section 2.4): what a guest answers may have come in elsewhere.
        yield Sysctl(f"net/ipv4/conf/{bridge}/rp_filter", "2")
    if six:
        for device in sorted(config.uplink.devices):
            # A forwarding host ignores router advertisements unless told otherwise. Where
            # they are ignored already (0), that is somebody's wish.
            yield Sysctl(f"net/ipv6/conf/{device}/accept_ra", "2", instead_of="1")
        yield Sysctl("net/ipv6/conf/all/forwarding", "1")

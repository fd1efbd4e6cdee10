"""The gateway address that every node has: how it is set up, and kept off inter-node links.

Every node answers for it, so its ARP and neighbour discovery must stay on the
node: a guest would otherwise learn another node's MAC address. In the bridge
family, matched by device name: a netdev chain must name devices that exist when
it is made, and silently loses one that is deleted and comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig
    from cgw_hooks.core.published_port import Address

TABLE = "bridge cgw"

_PRIORITY = -300  # before others filter (-200), and before br_netfilter sees the packet
_HOOKS = {"prerouting": "iifname", "forward": "oifname", "output": "oifname"}


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


def filter_rules(config: NodeConfig) -> list[str]:
    """The bridge table as nft text; nothing where no inter-node device is configured."""
    networks = [network for network in config.guest_networks if network.internode_devices]
    if not networks:
        return []
    lines = [f"add table {TABLE}"]
    for hook in _HOOKS:
        lines += [
            f"add chain {TABLE} {hook} {{ type filter hook {hook} priority {_PRIORITY}; }}",
            f"flush chain {TABLE} {hook}",
        ]
    for network in networks:
        devices = "{ " + ", ".join(f'"{device}"' for device in network.internode_devices) + " }"
        for hook, device in _HOOKS.items():
            lines += [
                f"add rule {TABLE} {hook} {device} {devices} {frames} drop"
                for frames in _gateway_frames(network)
            ]
    return lines


def remove_filter() -> str:
    """Text that takes the bridge table away, also where it is not there."""
    return f"add table {TABLE}\ndelete table {TABLE}\n"


def _gateway_frames(network: GuestNetwork) -> Iterator[str]:
    """Frames that ask for the gateway address, or tell whose it is."""
    address = network.gateway_address
    if address.version == 4:  # noqa: PLR2004
        yield f"arp saddr ip {address}"
        yield f"arp daddr ip {address}"
        return
    discovery = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"
    yield f"ip6 saddr {address} {discovery}"
    # The target of both messages, RFC 4861 sections 4.3 and 4.4; also that of duplicate
    # address detection. nft 1.0.6 has no name for it.
    yield f"{discovery} @th,64,128 {int(address):#034x}"

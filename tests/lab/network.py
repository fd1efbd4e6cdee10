"""The lab's address plan and wiring: a client and N nodes on one uplink network, guests behind.

    client ---- uplink 192.168.122.0/24 ---- xenbr0 [node] guestbr0 ---- guests 10.5.5.0/24
    .100        fd00:122::/64                .11 .12 ...   .251 .252 ... and .254 on every node

Several nodes stand in a ring: eth1.100 of each is joined to eth2.100 of the next one.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.namespace import Namespace, veth

CLIENT_ADDRESS = "192.168.122.100"
CLIENT_ADDRESS6 = "fd00:122::100"
UPLINK_SUBNET = "192.168.122.0/24"
UPLINK_SUBNET6 = "fd00:122::/64"
GUEST_SUBNET = "10.5.5.0/24"
GUEST_SUBNET6 = "fd00:5::/64"
GATEWAY_ADDRESS = "10.5.5.254"
GATEWAY_ADDRESS6 = "fd00:5::254"
UPLINK_BRIDGE = "xenbr0"
GUEST_BRIDGE = "guestbr0"
INTERNODE_DEVICES = ("eth1.100", "eth2.100")
_CLIENT_MAC = "02:00:00:00:7a:64"
MAC_PREFIX = "52:54:00:05:05:"
_NODES_WITHOUT_RING = 2

_ROUTER_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
}
_QUICK_IPV6 = {
    # Duplicate address detection keeps a new address unusable for a second or two.
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
}


@dataclass(frozen=True)
class NodeAddresses:
    """The addresses of the node with this index, counted from 1."""

    index: int

    @property
    def uplink(self) -> str:
        """192.168.122.11 for the first node."""
        return f"192.168.122.{10 + self.index}"

    @property
    def uplink6(self) -> str:
        """fd00:122::11 for the first node."""
        return f"fd00:122::{10 + self.index}"

    @property
    def guest_network(self) -> str:
        """The node's own address among the guests: 10.5.5.251 for the first node."""
        return f"10.5.5.{250 + self.index}"

    @property
    def guest_network6(self) -> str:
        """fd00:5::251 for the first node."""
        return f"fd00:5::{250 + self.index}"

    @property
    def bridge_mac(self) -> str:
        """The MAC of the node's guest bridge: 02:00:00:00:05:01 for the first node."""
        return f"02:00:00:00:05:{self.index:02x}"


def guest_address(octet: int) -> str:
    """The IPv4 address of the guest with this number on the guest bridge."""
    return f"10.5.5.{octet}"


def guest_address6(octet: int) -> str:
    """The IPv6 address of the guest with this number on the guest bridge."""
    return f"fd00:5::{octet}"


def wire_client(client: Namespace) -> None:
    """Give the client its end of the uplink network: a bridge with one port to each node."""
    client.sysctl(_QUICK_IPV6)
    client.ip(
        # Of its own: without one, it would get another one when a node's port goes with the node.
        f"link add uplink0 address {_CLIENT_MAC} type bridge\n"
        f"link set uplink0 up\n"
        f"address add {CLIENT_ADDRESS}/24 dev uplink0\n"
        f"address add {CLIENT_ADDRESS6}/64 dev uplink0 nodad\n"
    )


def wire_node(node: Namespace, client: Namespace, addresses: NodeAddresses) -> None:
    """Give a node its uplink and its guest bridge with all addresses, and make it a router."""
    wire_bridges(node, client, addresses)
    node.ip(
        f"address add {addresses.guest_network}/24 dev {GUEST_BRIDGE}\n"
        f"address add {GATEWAY_ADDRESS}/24 dev {GUEST_BRIDGE}\n"
        f"address add {addresses.guest_network6}/64 dev {GUEST_BRIDGE} nodad\n"
        f"address add {GATEWAY_ADDRESS6}/64 dev {GUEST_BRIDGE} nodad\n"
    )
    node.sysctl(_ROUTER_SYSCTLS)


def wire_bridges(node: Namespace, client: Namespace, addresses: NodeAddresses) -> None:
    """Give a node its uplink to the client, and a guest bridge without addresses."""
    node.sysctl(_QUICK_IPV6)
    port = f"node{addresses.index}"
    veth(node, "eth0", client, port)
    # Fixed MACs: a bridge that takes its MAC from its ports forgets all neighbours, permanent ones
    # too, whenever a guest's device comes or goes.
    node.ip(
        f"link add {UPLINK_BRIDGE} address 02:00:00:00:7a:{addresses.index:02x} type bridge\n"
        f"link set {UPLINK_BRIDGE} up\n"
        f"link set eth0 master {UPLINK_BRIDGE}\n"
        f"address add {addresses.uplink}/24 dev {UPLINK_BRIDGE}\n"
        f"address add {addresses.uplink6}/64 dev {UPLINK_BRIDGE} nodad\n"
        f"link add {GUEST_BRIDGE} address {addresses.bridge_mac} type bridge\n"
        f"link set {GUEST_BRIDGE} up\n"
    )
    client.ip(f"link set {port} master uplink0")


def address_guest(guest: Namespace, octet: int, mac: str) -> None:
    """Give a guest's device eth0 its MAC, its addresses and the gateway."""
    guest.sysctl(_QUICK_IPV6)
    guest.ip(
        f"link set eth0 address {mac} up\n"
        f"address add {guest_address(octet)}/24 dev eth0\n"
        f"address add {guest_address6(octet)}/64 dev eth0 nodad\n"
        f"route add default via {GATEWAY_ADDRESS}\n"
        f"route add default via {GATEWAY_ADDRESS6}\n"
    )


def wire_ring(nodes: Sequence[Namespace], *, spanning_tree: bool = True) -> None:
    """Join the nodes' guest bridges in a ring (two of them: by one link).

    With `spanning_tree`, the last node of three runs the kernel's, and blocks one of its two links;
    a bridge without it passes the tree's frames on. On a bridge that runs it a new guest's device
    stays silent for twice the forward delay, 4 s at the least. Without it, the ring stays open at
    the last node until `close_ring`.
    """
    last = nodes[-1]
    has_ring = len(nodes) > _NODES_WITHOUT_RING
    if has_ring and spanning_tree:
        last.ip(
            f"link set {GUEST_BRIDGE} type bridge"
            " stp_state 1 forward_delay 200 hello_time 100 max_age 600"
        )
    out, back = INTERNODE_DEVICES
    for node, following in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
        if node is following or (node is last and not has_ring):
            break
        veth(node, out, following, back)
        following.ip(f"link set {back} master {GUEST_BRIDGE}")
        if node is not last or spanning_tree:
            node.ip(f"link set {out} master {GUEST_BRIDGE}")


def close_ring(nodes: Sequence[Namespace]) -> None:
    """Close a ring of nodes that are up with `full-mesh`; then run `cgw node up` on the last one.

    The ring must not be closed before: in a ring of bridges that pass all frames, frames never
    end.
    """
    if len(nodes) > _NODES_WITHOUT_RING:
        nodes[-1].ip(f"link set {INTERNODE_DEVICES[0]} master {GUEST_BRIDGE}")


def unplug(node: Namespace) -> None:
    """Take a node off all networks, as if it had no power."""
    _set_plugs(node, "down")


def plug_in(node: Namespace) -> None:
    """Undo `unplug`."""
    _set_plugs(node, "up")


def _set_plugs(node: Namespace, state: str) -> None:
    devices = {"eth0", *INTERNODE_DEVICES}
    links = json.loads(node.run(["ip", "-json", "link", "show"]).stdout)
    there = [link["ifname"] for link in links if link["ifname"] in devices]
    node.ip("".join(f"link set {device} {state}\n" for device in there))


def remember_guests(node: Namespace, domain_xml: str) -> None:
    """Enter the lab's guests of this definition as permanent neighbours on the guest bridge.

    Otherwise a client that polls a booting guest waits up to a second for the next ARP retry.
    """
    commands = ""
    for last_byte in re.findall(rf"{MAC_PREFIX}([0-9a-f]{{2}})", domain_xml):
        octet = int(last_byte, 16)
        for address in (guest_address(octet), guest_address6(octet)):
            mac = f"{MAC_PREFIX}{last_byte}"
            commands += f"neigh replace {address} lladdr {mac} nud permanent dev {GUEST_BRIDGE}\n"
    if commands:
        node.ip(commands)

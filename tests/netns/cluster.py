"""Nodes in a ring, guests on any of them, a client on the uplink.

    client --- uplink --- xenbr0 [node1] guestbr0 eth1.100 --- eth2.100 guestbr0 [node2] ...
    .100                  .11     web1   .251                           .252     web2

Guest N (octet 20 + N) runs on node N, and `web4` on node1 too; each publishes port 2200 + N on
every node. The spanning tree blocks the link between node1 and node3, so frames between node1
and node3 are bridged through node2.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import network
from tests.lab.gateway_config import gateway_config
from tests.lab.namespace import namespace
from tests.lab.network import NodeAddresses, guest_address, guest_address6
from tests.netns.asker import Asker
from tests.netns.capture import Capture
from tests.netns.conftest import uplink_client
from tests.netns.guest import Guest
from tests.netns.node import Node

PROTOCOLS = ("tcp", "udp", "sctp")
SERVED = 22
HOMES = {"web1": 1, "web2": 2, "web3": 3, "web4": 1}
_LINK_PATIENCE = 120.0


def guest_number(name: str) -> int:
    """4 for web4."""
    return int(name.removeprefix("web"))


def guest_at(name: str, family: int) -> str:
    """The address of a guest."""
    return {4: guest_address, 6: guest_address6}[family](20 + guest_number(name))


def uplink(index: int, family: int) -> str:
    """A node's address on the uplink."""
    addresses = NodeAddresses(index)
    return addresses.uplink if family == 4 else addresses.uplink6


def inside(index: int, family: int) -> str:
    """A node's own address among the guests."""
    addresses = NodeAddresses(index)
    return addresses.guest_network if family == 4 else addresses.guest_network6


@dataclass(frozen=True)
class Cluster:
    """The hosts of the cluster, and captures of their wires."""

    client: Asker
    nodes: dict[int, Node]
    guests: dict[str, Guest]
    uplinks: dict[int, Capture]
    internode: list[Capture]
    full_mesh: bool

    def asker(self, who: str) -> Asker:
        """The client, a node ("node2") or a guest ("web3")."""
        if who in self.guests:
            return self.guests[who].wire
        return self.client if who == "client" else self.nodes[int(who.removeprefix("node"))]

    def pass_bridged_packets_to_rules(self, on: bool) -> None:
        """Switch br_netfilter on or off, on every node."""
        for node in self.nodes.values():
            node.pass_bridged_packets_to_rules(on)

    def uplinks_used(self, protocol: str) -> set[int]:
        """The nodes that have sent packets of the protocol by their uplink since the last call."""
        return {
            index
            for index, capture in self.uplinks.items()
            if any(frame.sent and frame.kind == protocol for frame in capture.frames())
        }

    def internode_frames_about(self, address: str) -> set[str]:
        """Kinds of ARP and discovery about an address that were on the wire between nodes."""
        frames = [frame for capture in self.internode for frame in capture.frames()]
        return {frame.kind for frame in frames if frame.concerns(address)}


@contextmanager
def cluster(
    folder: Path, *, homes: dict[str, int] = HOMES, nodes: int = 3, full_mesh: bool = False
) -> Iterator[Cluster]:
    """A cluster that is wired and configured; its nodes are gateways once `cgw node up` ran.

    A full mesh runs no spanning tree; `all_up` closes its ring.
    """
    with ExitStack() as until_end:
        client = until_end.enter_context(uplink_client())
        made = {
            index: _node(client, index, folder, until_end, full_mesh=full_mesh)
            for index in range(1, nodes + 1)
        }
        guests = {name: _guest(made[home], name) for name, home in homes.items()}
        network.wire_ring([n.namespace for n in made.values()], spanning_tree=not full_mesh)
        uplinks = {i: Capture(node.namespace, "eth0") for i, node in made.items()}
        internode = [
            Capture(node.namespace, device)
            for node in made.values()
            for device in _ports(node)
            if device in network.INTERNODE_DEVICES
        ]
        for capture in (*uplinks.values(), *internode):
            until_end.callback(capture.close)
        _wait_for_ports(made[nodes])
        yield Cluster(client, made, guests, uplinks, internode, full_mesh)


def all_up(made: Cluster) -> None:
    """Make every node a gateway, and publish every guest on each."""
    for node in made.nodes.values():
        node.cgw("node", "up")
        for guest in made.guests.values():
            assert node.hook(guest.name, "started", "-", guest.xml).exit_code == 0
    if made.full_mesh:
        network.close_ring([node.namespace for node in made.nodes.values()])
        made.nodes[len(made.nodes)].cgw("node", "up")


def _node(
    client: Asker, index: int, folder: Path, until_end: ExitStack, *, full_mesh: bool
) -> Node:
    inner = until_end.enter_context(namespace(f"node{index}"))
    network.wire_bridges(inner, client.namespace, NodeAddresses(index))
    own = folder / f"node{index}"
    own.mkdir()
    node = Node(inner, own, until_end, name=f"node{index}")
    node.configure(gateway_config(NodeAddresses(index), full_mesh=full_mesh))
    return node


def _guest(node: Node, name: str) -> Guest:
    port, served = 2200 + guest_number(name), " ".join(f"{SERVED}/{p}" for p in PROTOCOLS)
    guest = node.guest(
        name,
        *(f"{port}:{SERVED}/{protocol}" for protocol in PROTOCOLS),
        serves=served,
        octet=20 + guest_number(name),
        addresses=f"{guest_at(name, 4)},{guest_at(name, 6)}",
    )
    guest.wire.serve(guest_at(name, 6), served)
    return guest


def _ports(node: Node) -> dict[str, str]:
    """The bridge's ports and their spanning tree states."""
    words = [line.split() for line in node.namespace.run(["bridge", "link"]).stdout.splitlines()]
    return {
        line[1].rstrip(":").partition("@")[0]: line[line.index("state") + 1]
        for line in words
        if network.GUEST_BRIDGE in line
    }


def _wait_for_ports(node: Node) -> None:
    """Wait until ports that are not blocked have listened, learnt, and forward."""
    deadline = time.monotonic() + _LINK_PATIENCE
    while not set((states := _ports(node)).values()) <= {"forwarding", "blocking"}:
        assert time.monotonic() < deadline, f"the spanning tree does not settle: {states}"
        time.sleep(0.1)

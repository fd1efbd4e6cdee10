"""Three gateways whose guests move, a client on the uplink, and a far client behind a router.

                     far 203.0.113.100, fd00:113::100
                      |  (MTU 1400)
                     router .1
                      |
    client .100 --- uplink 192.168.122.0/24, fd00:122::/64
                      |                 |                 |
                    node1 .11         node2 .12         node3 .13
                    guestbr0 -------- guestbr0 -------- guestbr0
                      |  |________________|_________________|  |
                     web1               web2               web3     (each can be on any node)

- A *chain* is node1 - node2 - node3: between node1 and node3, all frames pass node2. A *mesh* also
  has the link between node1 and node3.
- Guest webN (10.5.5.2N, fd00:5::2N) starts on node N. It answers "who am I, whom do I see" at port
  22 of TCP, UDP and SCTP, which every node publishes as 220N. At port 7 (230N) of TCP and UDP, the
  test itself holds the guest's sockets (`sessions.py`). Nobody listens at port 999 (240N).
- Each guest is published on every node: by the hook where it runs, by a [[remote-guest]] entry
  with its uuid elsewhere.
- The far client says in each SYN that it takes segments for an MTU of 1500, as a host behind a
  tunnel does. So the path MTU must be found by ICMP.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cgw_hooks.core.node_config import CT_SYNC, FULL_NAT
from tests.failover.conntrackd import Conntrackd
from tests.lab import network
from tests.lab.domain import guest_uuid
from tests.lab.gateway_config import gateway_config, remote_node_table
from tests.lab.namespace import Namespace, namespace, veth
from tests.lab.network import CLIENT_ADDRESS, CLIENT_ADDRESS6, NodeAddresses
from tests.libvirt.waiting import eventually
from tests.netns.asker import Asker
from tests.netns.cluster import inside
from tests.netns.conftest import uplink_client
from tests.netns.node import Node
from tests.return_path.leaks import Leaks
from tests.return_path.moving_guest import (
    MovingGuest,
    guest_address,
    guest_number,
    guest_octet,
)
from tests.return_path.servers import HTTP, SMTP, SSH
from tests.return_path.sessions import Connection, Exchange, Talker

CHAIN, MESH = "chain", "mesh"
GUESTS = ("web1", "web2", "web3")
NODES = (1, 2, 3)
CLIENT = {4: CLIENT_ADDRESS, 6: CLIENT_ADDRESS6}
FAR = {4: "203.0.113.100", 6: "fd00:113::100"}
FAR_MTU = 1400
PROTOCOLS = ("tcp", "udp", "sctp")
WHO, TALK, SILENT = 22, 7, 999
#: The listening port of web0 for each of the guests' ports.
_LISTENING = {WHO: 2200, TALK: 2300, SILENT: 2400, HTTP: 8000, SMTP: 2500, SSH: 2600}
_PUBLISHED = {WHO: PROTOCOLS, TALK: ("tcp", "udp"), SILENT: ("tcp", "udp")}
_PUBLISHED |= dict.fromkeys((HTTP, SMTP, SSH), ("tcp",))
_ROUTER = {4: "192.168.122.1", 6: "fd00:122::1"}
_FAR_ROUTER = {4: "203.0.113.1", 6: "fd00:113::1"}
_FAR_SUBNET = {4: "203.0.113.0/24", 6: "fd00:113::/64"}
#: The kernel would answer only some of the packets that come at once with an ICMP error.
_EVERY_ICMP_ERROR = {"net/ipv4/icmp_ratelimit": "0", "net/ipv6/icmp/ratelimit": "0"}


def listening_port(guest: str, port: int) -> int:
    """The port of the nodes that is published for a guest's port."""
    return _LISTENING[port] + guest_number(guest)


@dataclass
class Cluster:
    """The hosts, and what watches the uplinks."""

    return_path: str
    topology: str
    client: Asker
    far: Asker
    router: Namespace
    nodes: dict[int, Node]
    leaks: Leaks
    until_end: ExitStack
    guests: dict[str, MovingGuest] = field(default_factory=dict)
    #: The conntrackd of each node, if the return path needs it.
    daemons: dict[int, Conntrackd] = field(default_factory=dict)
    is_passing_bridged_packets: bool = False
    #: What the present test has opened.
    opened: list[Connection | Exchange] = field(default_factory=list)

    @cached_property
    def talkers(self) -> dict[tuple[str, int], Talker]:
        """The sockets of each guest's port 7, by guest and IP family."""
        made = {
            (name, family): Talker(guest.wire.namespace, guest.address(family), TALK)
            for name, guest in self.guests.items()
            for family in (4, 6)
        }
        for talker in made.values():
            self.until_end.callback(talker.close)
        return made

    def asker(self, who: str) -> Asker:
        """The client, the far client, a node ("node2") or a guest ("web3")."""
        if who in self.guests:
            return self.guests[who].wire
        if who in {"client", "far"}:
            return {"client": self.client, "far": self.far}[who]
        return self.nodes[int(who.removeprefix("node"))]

    def seen_as(self, address: str, entry: int) -> str:
        """The source that a guest sees of a client outside that comes in by this node."""
        if self.return_path == FULL_NAT:
            return inside(entry, 6 if ":" in address else 4)
        return address

    def put(self, guest: str, node: int) -> MovingGuest:
        """Let a guest be on a node, with that node as its gateway."""
        moved = self.guests[guest]
        moved.move(node)
        if moved.gateway_macs() != {NodeAddresses(node).bridge_mac}:
            moved.meet_gateway()
        return moved

    def pass_bridged_packets_to_rules(self, on: bool) -> None:
        """Switch br_netfilter on or off, on every node."""
        self.is_passing_bridged_packets = on
        for node in self.nodes.values():
            node.pass_bridged_packets_to_rules(on)


@contextmanager
def open_cluster(
    folder: Path, return_path: str, topology: str, *, replicate: bool = False
) -> Iterator[Cluster]:
    """A cluster that is up, with all guests at home. At the end nothing of the guests is left.

    With `replicate` the nodes' config asks for conntrackd; the caller starts it.
    """
    with ExitStack() as until_end:
        client = until_end.enter_context(uplink_client())
        router = until_end.enter_context(namespace("router"))
        far = _far_client(client.namespace, router, until_end)
        nodes = {}
        for index in NODES:
            nodes[index] = _node(client, index, folder, until_end)
            nodes[index].configure(config(index, return_path, topology, replicate=replicate))
        network.wire_ring([node.namespace for node in nodes.values()], spanning_tree=False)
        if topology == CHAIN:  # beside the bridge, it would answer ARP for the bridge's address
            nodes[NODES[-1]].namespace.ip(f"link delete {network.INTERNODE_DEVICES[0]}\n")
        leaks = Leaks(client.namespace, [f"node{index}" for index in NODES])
        made = Cluster(return_path, topology, client, far, router, nodes, leaks, until_end)
        hubs = until_end.enter_context(namespace("hubs"))
        # A hub is a wire: no address of its own, and no rule looks at what passes.
        hubs.sysctl({f"net/ipv6/conf/{d}/disable_ipv6": "1" for d in ("all", "default")})
        for home, name in enumerate(GUESTS, start=1):
            made.guests[name] = _guest(made, name, home, hubs)
        _go_up(made)
        if return_path == CT_SYNC:
            start_daemons(made)
        yield made
        _end(made)


def start_daemons(made: Cluster) -> None:
    """Start conntrackd on each node; each hears another one when this returns."""
    for index, node in made.nodes.items():
        made.daemons[index] = Conntrackd(node)
        made.until_end.callback(made.daemons[index].kill)
    for daemon in made.daemons.values():
        assert eventually(daemon.hears_others)


def _far_client(client: Namespace, router: Namespace, until_end: ExitStack) -> Asker:
    far = until_end.enter_context(namespace("far"))
    quick = {"net/ipv6/conf/default/accept_dad": "0"}
    far.sysctl(quick)
    router.sysctl(
        {**quick, **_EVERY_ICMP_ERROR, "net/ipv4/ip_forward": "1",
         "net/ipv6/conf/all/forwarding": "1"}
    )  # fmt: skip
    veth(router, "near0", client, "router")
    veth(router, "far0", far, "eth0")
    client.ip(f"link set router master uplink0\nroute add {_FAR_SUBNET[4]} via {_ROUTER[4]}\n")
    router.ip(
        f"address add {_ROUTER[4]}/24 dev near0\naddress add {_ROUTER[6]}/64 dev near0 nodad\n"
        f"address add {_FAR_ROUTER[4]}/24 dev far0\n"
        f"address add {_FAR_ROUTER[6]}/64 dev far0 nodad\n"
        f"link set far0 mtu {FAR_MTU}\n"
    )
    far.ip(
        f"link set eth0 mtu {FAR_MTU}\n"
        f"address add {FAR[4]}/24 dev eth0\naddress add {FAR[6]}/64 dev eth0 nodad\n"
        f"route add default via {_FAR_ROUTER[4]} advmss lock 1460\n"
        f"route add default via {_FAR_ROUTER[6]} advmss lock 1440\n"
    )
    return Asker("far", far, until_end)


def _node(client: Asker, index: int, folder: Path, until_end: ExitStack) -> Node:
    inner = until_end.enter_context(namespace(f"node{index}"))
    network.wire_bridges(inner, client.namespace, NodeAddresses(index))
    inner.sysctl(_EVERY_ICMP_ERROR)
    inner.ip("".join(f"route add {_FAR_SUBNET[f]} via {_ROUTER[f]}\n" for f in (4, 6)))
    own = folder / f"node{index}"
    own.mkdir()
    return Node(inner, own, until_end, name=f"node{index}")


def config(index: int, return_path: str, topology: str, *, replicate: bool = False) -> str:
    """The cgw.toml of a node. All nodes name all guests; none names itself as a remote node."""
    out, back = network.INTERNODE_DEVICES
    of_chain = {1: (out,), 2: (out, back), 3: (back,)}
    devices = (out, back) if topology == MESH else of_chain[index]
    own = gateway_config(
        NodeAddresses(index), internode=devices, full_mesh=topology == MESH,
        return_path="" if return_path == FULL_NAT else return_path,
    )  # fmt: skip
    others = "".join(remote_node_table(NodeAddresses(n)) for n in NODES if n != index)
    name = f'[node]\nname = "node{index}"\n'
    others = others if replicate or return_path != FULL_NAT else ""
    failover = "[failover]\nreplicate = true\n" if replicate else ""
    return name + own + others + failover + "".join(map(_remote, GUESTS))


def _remote(guest: str) -> str:
    """The [[remote-guest]] entry of a guest."""
    addresses = [guest_address(guest, family) for family in (4, 6)]
    return (
        f'[[remote-guest]]\nname = "{guest}"\nuuid = "{guest_uuid(guest_octet(guest))}"\n'
        f"address = {addresses}\npublish = {_published(guest)}\n"
    )


def _published(guest: str) -> list[str]:
    return [
        f"{listening_port(guest, port)}:{port}/{protocol}"
        for port, protocols in _PUBLISHED.items()
        for protocol in protocols
    ]


def _guest(made: Cluster, name: str, home: int, hubs: Namespace) -> MovingGuest:
    own = made.until_end.enter_context(namespace(name))
    own.sysctl(_EVERY_ICMP_ERROR)
    addresses = [guest_address(name, family) for family in (4, 6)]
    definition = made.nodes[home].guest(
        name, *_published(name), octet=guest_octet(name), addresses=",".join(addresses)
    )
    wire = Asker(name, own, made.until_end)
    moving = MovingGuest(definition, wire, hubs, made.nodes)
    wire.serve("::", f"{WHO}/tcp {WHO}/udp")
    for address in addresses:
        wire.serve(address, f"{WHO}/sctp")
    return moving


def _go_up(made: Cluster) -> None:
    for node in made.nodes.values():
        node.cgw("node", "up")
    if made.topology == MESH:
        network.close_ring([node.namespace for node in made.nodes.values()])
        made.nodes[NODES[-1]].cgw("node", "up")
    for guest in made.guests.values():
        guest.start()
        guest.meet_gateway()


def _end(made: Cluster) -> None:
    """Stop all guests: then a node has the remote entries alone, and without them nothing."""
    for guest in made.guests.values():
        guest.stop()
    for node in made.nodes.values():
        node.cgw("node", "down")
        assert node.our_table() == "", node.our_table()

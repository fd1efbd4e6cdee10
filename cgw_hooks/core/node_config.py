"""The node's own configuration, as values. Without a config file, the defaults apply."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.published_port import MAX_PORT, MIN_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.annotation import Annotation
    from cgw_hooks.core.published_port import Address, Network


#: How a guest's answers return to the node where the client came in (`core/rules/return_path`).
FULL_NAT, STEER, CT_SYNC = "full-nat", "steer", "ct-sync"


class GuestNetwork(NamedTuple):
    """One guest subnet, on a guest bridge that all nodes of the cluster connect."""

    bridge: str
    subnet: Network
    #: This node's own address: the guest sees it as the client of every published port.
    node_address: Address
    #: The guests' default gateway; all nodes have this same address.
    gateway_address: Address
    internode_devices: tuple[str, ...] = ()
    #: Each node has a direct link to each other node, so no link needs another link's frames.
    full_mesh: bool = False
    return_path: str = FULL_NAT
    #: The MAC address of the guest bridge, as ``aa:bb:cc:dd:ee:ff``. ``cgw node up`` sets it if
    #: the return path needs it; empty for FULL-NAT.
    bridge_mac: str = ""


class RemoteNode(NamedTuple):
    """Another node of the cluster."""

    name: str
    #: Its node address in each guest network.
    node_addresses: tuple[Address, ...]
    #: Its own addresses on the uplink: a connection from one of them is the node's own, or that
    #: of a guest behind it.
    uplink_addresses: tuple[Address, ...] = ()
    #: The MAC addresses of its guest bridges.
    bridge_macs: tuple[str, ...] = ()

    def address_in(self, subnet: Network) -> Address | None:
        """Return its node address in a subnet."""
        for address in self.node_addresses:
            if address.version == subnet.version and address in subnet:
                return address
        return None


class Uplink(NamedTuple):
    """The guests' way out, through ``devices`` (empty: any).

    ``addresses`` is at most one SNAT address per IP family (none: masquerade).
    """

    devices: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()


class Policy(NamedTuple):
    """What guests may publish on this node."""

    refuse_invalid: bool = True
    #: Inclusive ranges of listening ports.
    listen_ports: tuple[tuple[int, int], ...] = ((MIN_PORT, MAX_PORT),)
    #: A listening address must be in one of these networks, and must be given. None: no
    #: limit.
    listen_addresses: tuple[Network, ...] | None = None
    #: Each source of a port must be in one of these networks; None: no limit.
    sources: tuple[Network, ...] | None = None
    #: `cgw publish GUEST :PORT` picks a listening port of this inclusive range.
    auto_ports: tuple[int, int] = (30000, 32767)

    @property
    def is_limiting(self) -> bool:
        """Whether this policy can refuse a published port."""
        none = Policy()
        return self._replace(refuse_invalid=True, auto_ports=none.auto_ports) != none


class Endpoint(NamedTuple):
    """The client address of one etcd member."""

    host: str
    port: int = 2379
    is_tls: bool = False

    def __str__(self) -> str:
        """Return the endpoint as the config writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"


class Registry(NamedTuple):
    """How this node reaches the cluster's registry on etcd; the paths are those of PEM files."""

    #: The endpoints in the order in which they are tried.
    endpoints: tuple[Endpoint, ...]
    #: The certification authority of the members; empty means those that the host trusts.
    ca: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    #: A file whose only line is the user's password.
    password_file: str = ""
    #: What all keys begin with.
    prefix: str = "/cgw"


class Metrics(NamedTuple):
    """What the agent measures, and where it tells Prometheus how things are."""

    #: A loopback address and a port, or the path of a Unix socket; or neither.
    address: Address | None = None
    port: int = 0
    socket: str = ""
    #: A file that ends in ``.prom``; empty: none.
    textfile: str = ""
    #: Whether each published port has numbers of its own.
    per_port: bool = True
    #: Whether the agent counts the bytes of connections that have ended.
    counts_bytes: bool = False

    @property
    def is_told(self) -> bool:
        """Whether Prometheus is told anything."""
        return bool(self.listen or self.textfile)

    @property
    def listen(self) -> str:
        """The address or path as the config writes it; empty: none."""
        if self.address is None:
            return self.socket
        host = f"[{self.address}]" if ":" in str(self.address) else str(self.address)
        return f"{host}:{self.port}"


class NodeConfig(NamedTuple):
    """Everything that cgw.toml says."""

    name: str = ""
    uplink: Uplink = Uplink()
    guest_networks: tuple[GuestNetwork, ...] = ()
    remote_nodes: tuple[RemoteNode, ...] = ()
    #: The bits of packet marks and conntrack marks that the return paths use.
    mark_mask: int = 0xFF000000
    #: Whether conntrackd replicates flows, so that another node can take this one's over.
    replicates: bool = False
    policy: Policy = Policy()
    #: Guests that other nodes run.
    remote_guests: tuple[Annotation, ...] = ()
    #: None: the node's config alone names the remote guests.
    registry: Registry | None = None
    #: None: the agent tells Prometheus nothing.
    metrics: Metrics | None = None

    @property
    def steered_networks(self) -> list[GuestNetwork]:
        """The guest networks whose guests see the client's own address."""
        return [n for n in self.guest_networks if n.return_path != FULL_NAT]

    @property
    def is_synced(self) -> bool:
        """Whether the return path is ct-sync: then it is that of all guest networks."""
        return any(network.return_path == CT_SYNC for network in self.guest_networks)

    def guest_network_of(self, address: Address) -> GuestNetwork | None:
        """Return the declared guest network that contains an address."""
        for network in self.guest_networks:
            if address.version == network.subnet.version and address in network.subnet:
                return network
        return None

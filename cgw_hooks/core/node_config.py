"""The node's own configuration, as values. Without a config file, the defaults apply."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.published_port import MAX_PORT, MIN_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.annotation import Annotation
    from cgw_hooks.core.published_port import Address, Network


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

    @property
    def is_limiting(self) -> bool:
        """Whether this policy can refuse a published port."""
        return self._replace(refuse_invalid=True) != Policy()


class NodeConfig(NamedTuple):
    """Everything that cgw.toml says."""

    name: str = ""
    uplink: Uplink = Uplink()
    guest_networks: tuple[GuestNetwork, ...] = ()
    policy: Policy = Policy()
    #: Guests that other nodes run.
    remote_guests: tuple[Annotation, ...] = ()

    def guest_network_of(self, address: Address) -> GuestNetwork | None:
        """Return the declared guest network that contains an address."""
        for network in self.guest_networks:
            if address.version == network.subnet.version and address in network.subnet:
                return network
        return None

"""The node's own configuration, as values. Without a config file, the defaults."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.published_port import MAX_PORT, MIN_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.annotation import Annotation
    from cgw_hooks.core.published_port import Address, Network


class GuestNetwork(NamedTuple):
    """One subnet of the guests on a bridge that every node of the cluster shares."""

    bridge: str
    subnet: Network
    #: This node's own: the guest sees it as the client of every published port.
    node_address: Address
    #: The same on every node, the guests' default route.
    gateway_address: Address
    internode_devices: tuple[str, ...] = ()
    #: Every node has a direct link to every other: frames are never passed on between links.
    full_mesh: bool = False


class Uplink(NamedTuple):
    """Where guests go out: by ``devices`` (none: any), with ``addresses`` (none: masquerade)."""

    devices: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()


class Policy(NamedTuple):
    """What this node lets its guests publish."""

    refuse_invalid: bool = True
    #: Inclusive ranges of listening ports.
    listen_ports: tuple[tuple[int, int], ...] = ((MIN_PORT, MAX_PORT),)
    #: Networks that a listening address must be in; None: any address, and every local one.
    listen_addresses: tuple[Network, ...] | None = None
    #: Networks that clients may come from; None: from anywhere.
    sources: tuple[Network, ...] | None = None

    @property
    def is_limiting(self) -> bool:
        """Whether there is any port that a guest may not publish."""
        return self._replace(refuse_invalid=True) != Policy()


class NodeConfig(NamedTuple):
    """Everything that cgw.toml says."""

    name: str = ""
    uplink: Uplink = Uplink()
    guest_networks: tuple[GuestNetwork, ...] = ()
    policy: Policy = Policy()
    #: Guests that live on other nodes.
    remote_guests: tuple[Annotation, ...] = ()

    def guest_network_of(self, address: Address) -> GuestNetwork | None:
        """The declared guest network that an address is in."""
        for network in self.guest_networks:
            if address.version == network.subnet.version and address in network.subnet:
                return network
        return None

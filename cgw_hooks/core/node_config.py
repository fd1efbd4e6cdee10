"""The node's own configuration, as values. Without a config file, the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cgw_hooks.core.published_port import MAX_PORT, MIN_PORT
from cgw_hooks.errors import InvalidAnnotation, quoted

if TYPE_CHECKING:
    from cgw_hooks.core.annotation import Annotation
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.published_port import Address, Network, PublishedPort


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


class NodeConfig(NamedTuple):
    """Everything that cgw.toml says."""

    name: str = ""
    uplink: Uplink = Uplink()
    guest_networks: tuple[GuestNetwork, ...] = ()
    policy: Policy = Policy()
    #: Guests that live on other nodes.
    peer_guests: tuple[Annotation, ...] = ()


def refuse_unpublishable(guest: Guest, config: NodeConfig) -> None:
    """Hold a guest's ports against the node's networks and policy.

    Raises ``InvalidAnnotation``.
    """
    for port in guest.ports:
        who = f"guest {quoted(guest.name)}"
        if not _is_listen_range_allowed(port, config.policy):
            allowed = ", ".join(f"{first}-{last}" for first, last in config.policy.listen_ports)
            allowed = allowed or "(none)"
            raise InvalidAnnotation(
                f'{who}: <range start="{port.start}" end="{port.end}">: this node publishes '
                f"ports {allowed} (policy.listen-ports); choose one of them"
            )
        if port.target_address:
            _refuse_address(who, port.target_address, config)


def _is_listen_range_allowed(port: PublishedPort, policy: Policy) -> bool:
    return any(first <= port.start and port.end <= last for first, last in policy.listen_ports)


def _refuse_address(who: str, address: Address, config: NodeConfig) -> None:
    networks = [n for n in config.guest_networks if n.subnet.version == address.version]
    if not config.guest_networks:
        return  # no config: the guests' networks are libvirt's, and not known here
    network = next((n for n in networks if address in n.subnet), None)
    element = f'{who}: <publish address="{address}">'
    if network is None:
        subnets = ", ".join(str(n.subnet) for n in networks) or "none of this IP family"
        raise InvalidAnnotation(
            f"{element}: outside every guest network of this node ({subnets}); "
            "give the address that the guest has there"
        )
    taken = {
        network.gateway_address: "the gateway's address",
        network.node_address: "the node's own address",
        network.subnet.network_address: "the subnet's own address",
    }
    if network.subnet.version == 4:  # noqa: PLR2004
        taken[network.subnet.broadcast_address] = "the subnet's broadcast address"
    if address in taken:
        raise InvalidAnnotation(f"{element}: that is {taken[address]}; give the guest's own")

"""What a guest may publish on this node: the policy's limits and the rules for targets.

The node must reach a target address directly, on a link that has guests: not through a router. A
target must not be the node's own address, a broadcast address or a link-local address.
"""

from __future__ import annotations

from ipaddress import ip_network

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.published_port import ANY_ADDRESS, host
from cgw_hooks.errors import InvalidAnnotation, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig, Policy
    from cgw_hooks.core.published_port import Address, Network, PublishedPort

#: RFC 3927. Clouds serve a machine's credentials at an address of this network
#: (169.254.169.254).
_LINK_LOCAL = ip_network("169.254.0.0/16")


class Route(NamedTuple):
    """A route to an address.

    ``kind`` is the word of iproute2: "unicast" (another host on a link, or behind a router),
    "local" (this node itself), "broadcast", "multicast", "anycast" (IPv6: the routers of a link,
    including this node), or "unreachable", "blackhole" and "prohibit", which have no device
    (""). ``gateway`` is the next router, None if the address is on the link itself.
    """

    kind: str
    device: str = ""
    gateway: Address | None = None


def refuse_unpublishable(
    guest: Guest,
    config: NodeConfig,
    route_to: Callable[[Address], Route | None],
    bridges: Collection[str] = (),
) -> None:
    """Refuse a guest whose ports or targets the node's policy or networks do not allow.

    ``route_to`` returns the kernel's route to an address, None if there is none. ``bridges`` are
    the bridges of the guest's interfaces, as far as its definition names them. Raises
    ``InvalidAnnotation``.
    """
    if config.policy.is_limiting:
        for port in guest.ports:
            _refuse_by_policy(guest, port, config.policy)
    for address in dict.fromkeys(port.target_address for port in guest.ports):
        if address:
            wrong = _wrong_target(address, config, route_to, bridges)
            if wrong:
                raise _error(guest, f'<publish address="{address}">: {wrong}', _TARGET_CURE)


def is_target(
    address: Address,
    config: NodeConfig,
    route_to: Callable[[Address], Route | None],
    bridges: Collection[str],
) -> bool:
    """Whether ports of a guest on these bridges may be aimed at an address."""
    return not _wrong_target(address, config, route_to, bridges)


_NO_ROUTE = {"unreachable", "blackhole", "prohibit"}
_TARGET_CURE = "give the address that the guest has on its network"


def _refuse_by_policy(guest: Guest, port: PublishedPort, policy: Policy) -> None:
    if not any(first <= port.start and port.end <= last for first, last in policy.listen_ports):
        allowed = ", ".join(f"{first}-{last}" for first, last in policy.listen_ports) or "(none)"
        raise _error(
            guest,
            f'<range start="{port.start}" end="{port.end}">: this node publishes ports '
            f"{allowed} (policy.listen-ports)",
            "choose one of them",
        )
    if not _is_within(_listening(port), policy.listen_addresses):
        raise _error(
            guest,
            f"<portForward address> {host(port.listen_address)}: this node publishes at "
            f"{_listed(policy.listen_addresses)} (policy.listen-addresses)",
            "choose an address of those",
        )
    sources = port.sources or (ip_network(f"{ANY_ADDRESS[port.family]}/0"),)
    if not all(_is_within(source, policy.sources) for source in sources):
        raise _error(
            guest,
            f"{port.listen}: this node publishes to clients of {_listed(policy.sources)} "
            "(policy.sources)",
            "name some of those as <portForward source>",
        )


def _wrong_target(
    address: Address,
    config: NodeConfig,
    route_to: Callable[[Address], Route | None],
    bridges: Collection[str],
) -> str:
    network = config.guest_network_of(address)
    if network:
        return _reserved_in(network, address)
    if address.version == 4 and address in _LINK_LOCAL:  # noqa: PLR2004
        return "link-local addresses are not for guests"
    route = route_to(address)
    if route is None or route.kind in _NO_ROUTE:
        return "this node has no route to it"
    return _wrong_route(route, bridges)


def _wrong_route(route: Route, bridges: Collection[str]) -> str:
    if route.kind != "unicast":
        return f"that is a {route.kind} address of this node"
    if route.gateway:
        return f"this node reaches it only through a router ({route.gateway})"
    if bridges and route.device not in bridges:
        return (
            f"it lies behind {quoted(route.device)}, where the guest has no interface "
            f"(the guest is on {', '.join(sorted(bridges))})"
        )
    return ""


def _reserved_in(network: GuestNetwork, address: Address) -> str:
    if address == network.gateway_address:
        return "that is the gateway's address"
    if address == network.node_address:
        return "that is the node's own address"
    if address == network.subnet.network_address:
        return "that is the subnet's own address"
    if address == network.subnet.broadcast_address and address.version == 4:  # noqa: PLR2004
        return "that is the subnet's broadcast address"
    return ""


def _listening(port: PublishedPort) -> Network:
    """Return the listening addresses as a network: all addresses of the family, or one."""
    address = port.listen_address
    return ip_network(f"{address}/0" if address.is_unspecified else str(address))


def _is_within(network: Network, allowed: Iterable[Network] | None) -> bool:
    return allowed is None or any(
        network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]
        for other in allowed
    )


def _listed(networks: Iterable[Network] | None) -> str:
    return ", ".join(map(str, networks or ())) or "(none)"


def _error(guest: Guest, message: str, cure: str) -> InvalidAnnotation:
    return InvalidAnnotation(f"guest {quoted(guest.name)}", message, cure)

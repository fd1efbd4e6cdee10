"""Denies clients the published ports of this node, and admits them again.

The order is: file, ruleset (`ban_keeper`), flows.
"""

from __future__ import annotations

from ipaddress import ip_network

from cgw_hooks.core import bans
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import BanRefused
from cgw_hooks.host import addresses, client_flows
from cgw_hooks.node import ban_keeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from cgw_hooks.core.bans import Bans
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Address, Network
    from cgw_hooks.node.publisher import Publisher

_OWN_CURE = "give the client's own address, or add --force"
#: All clients are in one of these.
EVERYBODY: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))


class Allowed(NamedTuple):
    """What ``allow`` has changed."""

    #: The clients that are no longer denied.
    clients: list[str]
    #: A client, and what still denies it: a network around it, or who else has banned it.
    still: list[tuple[str, str]]


def deny(
    publisher: Publisher,
    clients: Collection[Network],
    *,
    until: int,
    maker: str,
    force: bool = False,
) -> int:
    """Ban clients until a time (seconds since 1970, or ``NO_END``); end their connections.

    Returns the number of flows that have ended. A client that ``maker`` has banned already gets the
    new time. Raises ``BanRefused`` for a client that only a mistake would ban, unless ``force``;
    ``RecordError``, ``RulesetError``.
    """
    if not force:
        _refuse_own(publisher.config, clients)
    given = dict.fromkeys(((bans.text_of(client), maker) for client in clients), until)
    ban_keeper.change(
        publisher.nft, publisher.state.directory, lambda before: (before | given, given.keys())
    )
    return client_flows.delete_flows(clients)


def allow(publisher: Publisher, clients: Collection[Network], maker: str | None = None) -> Allowed:
    """Lift the bans of clients, and of all clients within a network.

    ``maker`` lifts only those of one maker. Raises ``RecordError``, ``RulesetError``.
    """

    def lift(before: Bans) -> tuple[Bans, Collection[tuple[str, str]]]:
        gone = bans.lifted(before, clients, maker)
        return {key: until for key, until in before.items() if key not in gone}, gone

    after, touched = ban_keeper.change(publisher.nft, publisher.state.directory, lift)
    gone = {client for client, until in touched.items() if until is None}
    return Allowed(sorted(gone), bans.still_denied(after, clients))


def _refuse_own(config: NodeConfig, clients: Collection[Network]) -> None:
    """Refuse a ban of this node's own addresses, or of everybody. Raises ``BanRefused``."""
    own = _own_addresses(config)
    for client in clients:
        if client.prefixlen == client.max_prefixlen:
            if client.network_address in own:
                what = f"that is {own[client.network_address]}"
                raise BanRefused(str(client.network_address), what, _OWN_CURE)
            continue
        if client.prefixlen == 0:
            raise BanRefused(
                str(client), "that is every client", "give a smaller network, or add --force"
            )
        for address, what in own.items():
            if address in client:
                raise BanRefused(str(client), f"it contains {address}, {what}", _OWN_CURE)


def _own_addresses(config: NodeConfig) -> dict[Address, str]:
    """Return addresses of the gateways, each with what it is."""
    own: dict[Address, str] = {}
    for network in config.guest_networks:
        own[network.gateway_address] = "the gateway address"
        own[network.node_address] = "this node's node address, which guests see as the client"
    for node in config.remote_nodes:
        own |= dict.fromkeys(
            (*node.node_addresses, *node.uplink_addresses), "another node's address"
        )
    for version in (4, 6):
        for address, device in addresses.devices(version).items():
            own.setdefault(address, f"this node's own address (on {device})")
    return own

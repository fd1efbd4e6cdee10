"""The elements of guests in the maps and sets of cgw's tables.

A range whose ports keep their numbers is one element; any other range is one element per port.
"""

from __future__ import annotations

from cgw_hooks.core.published_port import ANY_ADDRESS
from cgw_hooks.core.rules.commands import IP
from cgw_hooks.core.rules.names import PROTOCOL_NUMBER, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Network, PublishedPort
    from cgw_hooks.core.record import Contents

    #: Table and name of a map or set -> key -> data; the data is empty in a set.
    Elements = dict[tuple[str, str], dict[str, str]]

#: The kinds of maps: suffix of the name -> the fields that precede protocol and port in the key.
#: In this order: for any local address; for one listening address; for given source networks.
KINDS = {"": (), "_at": ("daddr",), "_from": ("saddr", "daddr")}


def map_names() -> list[str]:
    """Return the names of all maps that hold elements of published ports.

    The data of ``published*`` is an address and a port. The data of ``ranges*`` is an address:
    the port keeps its number.
    """
    stems = ("published", "ranges")
    return [f"{stem}{family}{kind}" for family in IP for stem in stems for kind in KINDS]


def limit_map_names() -> list[str]:
    """Return the names of the maps that lead ports to the limits for their clients."""
    return [f"limited{family}{kind}" for family in IP for kind in KINDS]


def filled(config: NodeConfig) -> list[tuple[str, str]]:
    """Return table and name of the maps and sets that hold elements of guests."""
    found = [(TABLE, name) for name in (*map_names(), *limit_map_names())]
    if config.steered_networks:
        from cgw_hooks.core.rules.return_path import hosted

        found += hosted.served_names(config)
    return found


def elements(config: NodeConfig, contents: Contents) -> Elements:
    """Return the elements of guests: table and name -> key -> data, spelled as nft lists them."""
    found: Elements = {(TABLE, name): of for name, of in _published(contents.ports).items()}
    if contents.hosted and config.steered_networks:
        from cgw_hooks.core.rules.return_path import hosted

        for table, name, key in hosted.elements(config, contents.hosted):
            found.setdefault((table, name), {})[key] = ""
    return found


def _published(ports: Iterable[PublishedPort]) -> dict[str, dict[str, str]]:
    """Return the elements that translate and limit ports, map -> key -> data."""
    found: dict[str, dict[str, str]] = {}
    address, target = None, "None"
    for port in ports:
        kind, prefixes = _place(port)
        number = PROTOCOL_NUMBER[port.protocol]
        if port.target_address is not address:  # the ports of a guest follow each other
            address = port.target_address
            target = str(address)
        first, last, to = port.start, port.end, port.to
        if port.limits:
            from cgw_hooks.core.rules import limits

            in_map = found.setdefault(f"limited{port.family}{kind}", {})
            listen_ports = str(first) if first == last else f"{first}-{last}"
            for prefix in prefixes:
                verdict = f"jump {limits.chain(port.limits)}"
                in_map[f"{prefix}{number} . {listen_ports}"] = verdict
        if first < last and first == to:
            in_map = found.setdefault(f"ranges{port.family}{kind}", {})
            for prefix in prefixes:
                in_map[f"{prefix}{number} . {first}-{last}"] = target
            continue
        in_map = found.setdefault(f"published{port.family}{kind}", {})
        for listen in range(first, last + 1):
            data = f"{target} . {to + listen - first}"
            for prefix in prefixes:
                in_map[f"{prefix}{number} . {listen}"] = data
    return found


def _place(port: PublishedPort) -> tuple[str, list[str]]:
    """Return the kind of a published port's map, and the prefixes of its keys: one per source."""
    if port.sources:
        any_address = f"{ANY_ADDRESS[port.family]}/0"
        listen = any_address if port.listen_address.is_unspecified else port.listen_address
        return "_from", [f"{_network(source)} . {listen} . " for source in port.sources]
    if port.listen_address.is_unspecified:
        return "", [""]
    return "_at", [f"{port.listen_address} . "]


def _network(network: Network) -> str:
    """Format a network as nft lists it: a single address has no prefix length."""
    is_single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if is_single else network)

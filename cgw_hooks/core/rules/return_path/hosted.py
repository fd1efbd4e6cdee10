"""The sets that hold the guests of this node, for the return paths that need to know them."""

from __future__ import annotations

from cgw_hooks.core.rules.commands import IP
from cgw_hooks.core.rules.names import (
    BRIDGE_TABLE,
    FAMILY_TABLES,
    PROTOCOL_NUMBER,
    SYNC_BRIDGE_TABLE,
    SYNC_FAMILY_TABLES,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import PublishedPort


def families(config: NodeConfig) -> list[int]:
    """Return the IP versions of the steered networks."""
    return sorted({network.subnet.version for network in config.steered_networks})


def served_names(config: NodeConfig) -> list[tuple[str, str]]:
    """Return table and name of the sets that are filled with the guests that run here."""
    bridge, of_family = _tables(config)
    served = [
        (of_family[f], name) for f in families(config) for name in ("served", "served_ranges")
    ]
    return served + [(bridge, f"here{family}") for family in IP]


def _tables(config: NodeConfig) -> tuple[str, dict[int, str]]:
    """Return the tables of the return path: of the bridge, and of each IP family."""
    if config.is_synced:
        return SYNC_BRIDGE_TABLE, SYNC_FAMILY_TABLES
    return BRIDGE_TABLE, FAMILY_TABLES


def elements(config: NodeConfig, hosted: Iterable[PublishedPort]) -> Iterator[tuple[str, str, str]]:
    """Yield table, set and element for the published ports of guests that run here."""
    bridge, of_family = _tables(config)
    for port in hosted:
        address = port.target_address
        network = address and config.guest_network_of(address)
        if address is None or network is None or network not in config.steered_networks:
            continue
        yield bridge, f"here{address.version}", str(address)
        key = f"{address} . {PROTOCOL_NUMBER[port.protocol]} . {port.to}"
        if port.start == port.end:
            yield of_family[address.version], "served", key
        else:
            last = port.to + port.end - port.start
            yield of_family[address.version], "served_ranges", f"{key}-{last}"

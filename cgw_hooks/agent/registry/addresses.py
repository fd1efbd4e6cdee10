"""By what the return paths know this node and the others: the registry tells each the others'.

The keys have no lease: a node that is silent stays known. What the others have written is in a file
that all processes of cgw read. The repairer notices when it changes, and rewrites the rules.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from cgw_hooks.core import registry_value
from cgw_hooks.core.etcd.values import Delete, Put
from cgw_hooks.core.node_config import RemoteNode
from cgw_hooks.core.parse import fields
from cgw_hooks.core.parse.known_nodes import MOST_ADDRESSES, add_known, are_needed
from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import InvalidConfig, RegistryError
from cgw_hooks.host import addresses, log
from cgw_hooks.node import taken_addresses

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cgw_hooks.agent.agent_publisher import AgentPublisher
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Address
    from cgw_hooks.core.registry_view import View

#: Seconds between two looks at this node's own addresses. If two nodes have the same name, this is
#: also how often each replaces what the other has written.
_LOOK_SECONDS = 3.0


class NodeAddresses:
    """What this node says of itself, and what it knows of the others."""

    def __init__(self, publisher: AgentPublisher, view: View) -> None:
        #: Why other nodes are not known here.
        self.problems: tuple[Problem, ...] = ()
        #: The nodes whose addresses this one has taken over, as of the last look.
        self.stands_in_for: tuple[str, ...] = ()
        self._publisher = publisher
        self._view = view
        self._looked = 0.0
        #: What this node says of itself, as of the last look; None: the kernel has not told it yet.
        self._own: str | None = None
        self._seen: list[tuple[str, str]] | None = None

    def look_again(self) -> None:
        """Let the next ``differing`` look at once."""
        self._looked = 0.0

    def differing(self) -> list[Put | Delete]:
        """Return what must be written, so that all nodes know this one.

        They must also know those that it stands in for, even if somebody has deleted their keys.
        """
        now, found = time.monotonic(), self._view.own_addresses()
        is_deleted = bool(self._own) and not found
        if self._looked and now - self._looked < _LOOK_SECONDS and not is_deleted:
            return []
        self._looked = now
        changes = self._publisher.state.gateway_changes()
        self.stands_in_for = tuple(taken_addresses.by_node(changes))
        with suppress(OSError):  # the kernel did not tell its addresses: the next look is soon
            self._own = _own_value(self._publisher.loaded, taken_addresses.addresses(changes))
        missing: list[Put | Delete] = [
            Put(self._view.keys.addresses + node.name, registry_value.addresses_value(node))
            for node in self._stood_in_for({entry.node for entry in self._view.addresses()})
        ]
        if self._own is None or self._own == found:
            return missing
        key = self._view.keys.addresses + self._view.node
        return [*missing, Put(key, self._own) if self._own else Delete(key)]

    def _stood_in_for(self, but: Collection[str]) -> list[RemoteNode]:
        """Return the nodes that this one stands in for, as far as the registry has named them."""
        taken = taken_addresses.by_node(self._publisher.state.gateway_changes())
        before = self._publisher.known_nodes.read()
        return [node for node in before if node.name in taken and node.name not in but]

    def follow(self, *, is_connected: bool) -> None:
        """Write the file of the other nodes, if the registry says something else.

        Until the registry has answered, the file that is there counts. Raises ``RecordError``.
        """
        entries = [(e.node, e.value) for e in self._view.addresses() if e.node != self._view.node]
        file = self._publisher.known_nodes
        if entries == self._seen or (file.is_there and not is_connected):
            return
        before = file.read()
        nodes, errors = _read(entries, {node.name: node for node in before})
        nodes += tuple(self._stood_in_for({name for name, _ in entries}))
        if nodes != before or not file.is_there:
            file.write(nodes)
            names = ", ".join(node.name for node in nodes) or "none"
            log.notice(f"agent: the registry names these other nodes: {names}")
        loaded = self._publisher.loaded
        refused = add_known(loaded, nodes)[1]
        self.problems = (
            *(Problem.of(error) for error in errors if are_needed(loaded)),
            *(_problem(error) for error in refused),
        )
        self._seen = entries


def _own_value(config: NodeConfig, taken: Collection[Address]) -> str:
    """Return by what the others know this node; empty if they need not know it.

    ``taken`` are addresses of nodes that this one stands in for.
    """
    if not are_needed(config):
        return ""
    networks = config.guest_networks
    macs = dict.fromkeys(network.bridge_mac for network in networks if network.bridge_mac)
    own = RemoteNode(
        config.name,
        tuple(network.node_address for network in networks),
        tuple(_uplink_addresses(config, taken)[:MOST_ADDRESSES]),
        tuple(macs),
    )
    return registry_value.addresses_value(own)


def _uplink_addresses(config: NodeConfig, taken: Collection[Address]) -> list[Address]:
    """Return the node's addresses on its uplink; those of the config come first.

    Without uplink devices in the config, the uplink leads to the default gateway.
    """
    found = set()
    for version in (4, 6):
        devices = addresses.devices(version)
        outward = addresses.outward(version)
        uplink = config.uplink.devices or {devices[a] for a in (outward,) if a in devices}
        found |= {a for a, device in devices.items() if device in uplink and _is_global(a)}
    others = found - {*config.uplink.addresses, *taken}
    return [*config.uplink.addresses, *sorted(others, key=lambda a: (a.version, int(a)))]


def _is_global(address: Address) -> bool:
    try:
        fields.parse_guest_address(str(address))
    except ValueError:  # for example a link-local address
        return False
    return True


def _read(
    entries: Iterable[tuple[str, str]], before: dict[str, RemoteNode]
) -> tuple[tuple[RemoteNode, ...], list[RegistryError]]:
    """Return the nodes, and the errors of values that cannot be used: their nodes stay the same."""
    nodes, errors = [], []
    for name, value in entries:
        try:
            nodes.append(registry_value.addresses(name, value))
        except RegistryError as error:
            errors.append(error)
            if name in before:
                nodes.append(before[name])
    return tuple(nodes), errors


def _problem(error: InvalidConfig) -> Problem:
    return Problem.of(RegistryError(error.subject, error.message, error.cure))

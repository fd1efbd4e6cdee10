"""What other processes of this node, and other nodes, may know of this node's part."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import State
from cgw_hooks.core.registry_value import Presence, presence_members, presence_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.agent.agent_publisher import AgentPublisher
    from cgw_hooks.agent.registry.addresses import NodeAddresses
    from cgw_hooks.agent.registry.outbox import Outbox
    from cgw_hooks.agent.registry.presence import PresenceKeeper
    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.record import Record
    from cgw_hooks.core.registry_view import View
    from cgw_hooks.errors import RegistryError

_NETWORKS_CURE = "give all nodes the same [[guest-network]] tables"
_NAME_CURE = "give each node a name of its own in [node]"
_VERSION_CURE = "give all nodes the same version of cgw-hooks"


class Reporter:
    """Writes the status file, and says what this node's presence tells."""

    def __init__(
        self,
        publisher: AgentPublisher,
        view: View,
        outbox: Outbox,
        presence: PresenceKeeper,
        addresses: NodeAddresses,
    ) -> None:
        #: Why the registry did not answer; None if it did.
        self.error: RegistryError | None = None
        #: The problems of the registry itself.
        self.health: tuple[Problem, ...] = ()
        self._publisher = publisher
        self._view = view
        self._outbox = outbox
        self._presence = presence
        self._addresses = addresses
        self._closed: dict[str, dict[GuestKey, tuple[str, ...]]] = {}
        self._since = 0.0
        self._started = time.time()
        self._was_connected: bool | None = None
        self._written: dict[str, Any] = {}
        records, _ = publisher.state.all()
        for key, record in records.items():
            self._note(key, record)

    def write(self, changed: Iterable[GuestKey], *, is_connected: bool) -> None:
        """Write what has changed since the last time."""
        for key in changed:
            self._note(key, self._publisher.state.peek(key))
        self._presence.set(presence_value(self._own_presence()))
        if is_connected != self._was_connected:
            self._was_connected, self._since = is_connected, time.time()
        status = {
            "connected": is_connected,
            "since": self._since,
            "problems": [list(problem) for problem in self._problems()],
            "pending": self._outbox.pending(),
            "nodes": {node: presence_members(found) for node, found in self._view.nodes.items()},
        }
        if status != self._written:
            self._publisher.state.write_registry_status(status)
            self._written = status

    def _own_presence(self) -> Presence:
        networks = tuple(
            (str(network.subnet), str(network.gateway_address))
            for network in self._publisher.loaded.guest_networks
        )
        closed = {
            uuid: tuple(sorted({claim for claims in by_key.values() for claim in claims}))
            for uuid, by_key in self._closed.items()
        }
        others = self._addresses.stands_in_for
        return Presence(self._view.node, networks, closed, self._started, others)

    def _note(self, key: GuestKey, record: Record | None) -> None:
        """Note which ports of a guest are not open here."""
        uuid = record.guest.uuid if record else key.id
        by_key = self._closed.setdefault(uuid, {})
        by_key.pop(key, None)
        if record and record.state is State.PUBLISHED and record.problem:
            failed = record.withheld or record.guest.ports
            by_key[key] = tuple(str(port.claim) for port in failed)
        if not by_key:
            del self._closed[uuid]

    def _problems(self) -> list[Problem]:
        problems = [Problem.of(self.error)] if self.error else []
        problems += [problem for problem in self.health if problem not in problems]
        namesake = self._view.nodes.get(self._view.node)
        if namesake and namesake.since > self._started:  # an earlier one is this node's last agent
            message = "another node has the same name, and each deletes what the other has written"
            problems.append(Problem("registry", f"node {self._view.node}", message, _NAME_CURE))
        own = self._own_presence().networks
        for node, found in sorted(self._view.nodes.items()):
            if found.networks and set(found.networks) != set(own):
                message = "its config has other guest networks than this node's"
                problems.append(Problem("registry", f"node {node}", message, _NETWORKS_CURE))
        problems += self._addresses.problems
        if self._view.unknown:
            key = min(self._view.unknown)
            message = f"it has keys that this version does not know, for example {key}"
            problems.append(Problem("registry", "registry", message, _VERSION_CURE))
        return problems

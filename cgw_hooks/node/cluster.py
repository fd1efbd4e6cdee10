"""The whole cluster as this node's agent knows it: guests, nodes, and where each port is open."""

from __future__ import annotations

from cgw_hooks.core import registry_value
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.registry_value import Keys, Presence
from cgw_hooks.core.registry_view import View
from cgw_hooks.core.shared_ports import shared_ports
from cgw_hooks.errors import CgwError, InvalidConfig
from cgw_hooks.host import paths, registry_snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.node_config import Registry
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.publisher import Publisher

#: The states of a port at a node.
OPEN, CLOSED, PENDING, LOST = "open", "closed", "pending", "lost"


class NodeState(NamedTuple):
    """One node. ``since``: when its agent has started, in seconds since 1970; None: it is gone."""

    name: str
    since: float | None


class ClusterRow(NamedTuple):
    """One published port of one guest, and its state at each node."""

    guest: Guest
    #: The node that runs the guest, as far as the registry knows.
    node: str
    port: PublishedPort
    states: dict[str, str]


class Cluster(NamedTuple):
    """All nodes, all ports, and what is wrong with the registry."""

    nodes: list[NodeState]
    rows: list[ClusterRow]
    problems: list[Problem]


def read(publisher: Publisher, name: str | None = None, *, has_agent: bool = True) -> Cluster:
    """Return the cluster by the agent's last word: all guests, or those with this name or uuid.

    ``has_agent``: see ``pending``. Raises ``InvalidConfig`` if the config names no registry.
    """
    config = publisher.config
    if config.registry is None:
        raise InvalidConfig(paths.config_file(), "it names no [registry]", "see: man cgw.toml")
    status = publisher.state.registry_status()
    view = _last_view(config.registry, config.name)
    present = presences(status)
    gone = {e.node for uuid in view.uuids() for e in view.entries(uuid)} - present.keys()
    nodes = [NodeState(name, found.since) for name, found in present.items()]
    nodes += [NodeState(name, None) for name in gone]
    rows: list[ClusterRow] = []
    wrong: list[Problem] = []
    for uuid in view.uuids():
        try:
            rows += _rows(view, uuid, present)
        except CgwError as error:
            wrong.append(Problem.of(error))
    waiting = pending(publisher, status, has_agent=has_agent)
    rows += _pending(publisher, waiting, present)
    if name is not None:
        rows = [row for row in rows if name in {row.guest.name, row.guest.uuid}]
    rows.sort(key=lambda row: (row.guest.name, row.port.start, row.port.family))
    return Cluster(sorted(nodes), rows, [*problems(status), *wrong])


def presences(status: dict[str, Any]) -> dict[str, Presence]:
    """Return what each node that is there says about itself."""
    nodes = status.get("nodes", {})
    return {name: registry_value.presence_of(name, data) for name, data in nodes.items()}


def problems(status: dict[str, Any]) -> list[Problem]:
    """Return the problems of the registry that the agent has noted."""
    return [Problem(*listed) for listed in status.get("problems", ())]


def pending(
    publisher: Publisher, status: dict[str, Any], *, has_agent: bool
) -> dict[str, set[str]]:
    """Return the claims of this node that the registry has not confirmed, by uuid.

    Without an agent, nobody has told the registry of what hooks have published since: what it has
    confirmed is in the agent's copy of it.
    """
    config = publisher.config
    if config.registry is None:
        return {}
    if has_agent:
        return {uuid: set(claims) for uuid, claims in status.get("pending", {}).items()}
    view = _last_view(config.registry, config.name)
    by_uuid: dict[str, list[Record]] = {}
    for record in publisher.state.all()[0].values():
        if not record.guest.is_remote and record.guest.uuid:
            by_uuid.setdefault(record.guest.uuid, []).append(record)
    return {
        uuid: {str(port.claim) for port in shared_ports(records, config)} - _confirmed(view, uuid)
        for uuid, records in by_uuid.items()
    }


def _confirmed(view: View, uuid: str) -> set[str]:
    own = view.own(uuid)
    try:
        return set(map(str, registry_value.guest(uuid, own.value).claims)) if own else set()
    except CgwError:
        return set()


def _last_view(registry: Registry, node: str) -> View:
    """Return what the agent has written to the disk."""
    view = View(Keys(registry.prefix), node)
    found = registry_snapshot.read(paths.state_directory(), registry.prefix)
    if found:
        view.replace(found.revision, found.changes)
    return view


def _rows(view: View, uuid: str, present: dict[str, Presence]) -> Iterator[ClusterRow]:
    entry = view.entries(uuid)[0]
    guest = registry_value.guest(uuid, entry.value)
    runs_at = entry.node
    for port in guest.ports:
        states = {
            name: CLOSED if str(port.claim) in node.closed.get(uuid, ()) else OPEN
            for name, node in present.items()
        }
        if runs_at not in present:
            states[runs_at] = LOST
        yield ClusterRow(guest, runs_at, port, states)


def _pending(
    publisher: Publisher, waiting: dict[str, set[str]], present: dict[str, Presence]
) -> Iterator[ClusterRow]:
    """Yield the ports that only this node has opened yet."""
    own = publisher.config.name
    states = dict.fromkeys([*present, own], PENDING)
    for uuid, claims in waiting.items():
        for key in publisher.state.own_keys(uuid):
            record = publisher.state.peek(key)
            for port in record.guest.ports if record else ():
                if str(port.claim) in claims and record:
                    yield ClusterRow(record.guest, own, port, states)

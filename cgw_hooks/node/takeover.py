"""Carries a dead node's addresses and connections on (``cgw node takeover``), or gives them back.

The order matters. A packet that comes before its flow is known here would start a new one: so the
flows come first, then the addresses. While the flows come, the packets of the dead node's addresses
are dropped (``core/rules/takeover_guard``).
"""

from __future__ import annotations

import time

from cgw_hooks.core import conntrackd_config
from cgw_hooks.core.node_config import RemoteNode
from cgw_hooks.core.node_flows import is_translated_for
from cgw_hooks.core.rules import takeover_guard
from cgw_hooks.core.rules.gateway_settings import DeviceAddress
from cgw_hooks.errors import (
    AddressInUse,
    InvalidConfig,
    LinkError,
    NotFound,
    ReplicationError,
    quoted,
)
from cgw_hooks.host import addresses, announce, links, node_flows, routes
from cgw_hooks.node import flows_of_nodes, replication, taken_addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Address
    from cgw_hooks.host.conntrackd import Conntrackd
    from cgw_hooks.host.state.state import State
    from cgw_hooks.node.publisher import Publisher

#: Seconds until the flows of a node that is back are deleted here. Until then it has made them its
#: own; a deletion is replicated, too.
_SETTLING = 3.0


def take_over(publisher: Publisher, name: str) -> Iterator[str]:
    """Take over a node's addresses and flows; yield one line per change. May be repeated.

    With the name of this node itself, which is back: take its flows over from the node that has
    stood in for it. Raises ``AddressInUse`` if the node still answers, and other ``CgwError``. It
    raises ``ReplicationError`` at the end if the addresses could be taken over, but not the flows.
    """
    config, state = publisher.config, publisher.state
    if not state.gateway_changes():
        raise LinkError("node", "this host is no gateway now", "run: cgw node up")
    node = _own(config) if name and name == config.name else _remote_node(config, name)
    wanted = _places(config, node)
    is_own = node.name == config.name
    with state.taking_over():
        missing = [place for place in wanted if not links.has_address(place)]
        if not is_own:
            _refuse_a_living_node(node, missing)
        is_new = is_own or bool(missing)
        failure = _obstacle(publisher, is_own=is_own) if is_new else None
        publisher.nft.apply(takeover_guard.add(flows_of_nodes.addresses(node)))
        try:
            if is_new and not failure:
                failure = yield from _take_flows(publisher, node)
            if not is_own:
                yield from _add_addresses(state, node, wanted)
        finally:
            publisher.nft.apply(takeover_guard.delete())
        announce.announce([announce.Place(place.device, place.address) for place in wanted])
        yield f"announced {', '.join(str(place.address) for place in wanted)}"
        if failure:
            what = f"node {quoted(node.name)} is taken over without its connections"
            raise ReplicationError(failure.subject, f"{what}: {failure.message}", failure.cure)
        if is_new:
            _forget_flows_of_living_nodes(publisher, node)


def hand_back(publisher: Publisher, name: str) -> Iterator[str]:
    """Give a node's addresses back; yield one line per change. May be repeated."""
    if name and name == publisher.config.name:
        yield f"note   node {quoted(name)} is this node: its addresses stay"
        return
    with publisher.state.locked():
        places = taken_addresses.by_node(publisher.state.gateway_changes()).get(name, [])
        given_back = list(_give_back(publisher.state, name))
    yield from given_back
    if not places:
        node = _remote_node(publisher.config, name)
        yield f"note   node {quoted(node.name)} was not taken over"
        return
    if publisher.config.is_synced:
        return  # the flows stay as copies; the node makes them its own again
    time.sleep(_SETTLING)
    own = frozenset(place.address for place in places)
    count = node_flows.delete_flows(own, lambda ends: is_translated_for(ends, own))
    yield f"forgot {count} flows of node {quoted(name)}"
    _refresh_other_nodes(publisher)


def give_back_all(state: State) -> Iterator[str]:
    """Delete all addresses that were taken over. The caller holds the lock."""
    for name in taken_addresses.by_node(state.gateway_changes()):
        yield from _give_back(state, name)


def restore(state: State) -> Iterator[str]:
    """Add the addresses again that were taken over and are gone, with a bridge for example."""
    for places in taken_addresses.by_node(state.gateway_changes()).values():
        for place in places:
            if not links.missing_devices([place.device]) and links.add_address(place):
                yield f"added  {place.address} to {place.device}"


def _own(config: NodeConfig) -> RemoteNode:
    """Return this node as other nodes know it."""
    inside = tuple(network.node_address for network in config.guest_networks)
    return RemoteNode(config.name, inside, config.uplink.addresses)


def _remote_node(config: NodeConfig, name: str) -> RemoteNode:
    for node in config.remote_nodes:
        if node.name == name:
            return node
    known = ", ".join(quoted(node.name) for node in config.remote_nodes) or "none"
    raise NotFound(
        f"node {quoted(name)}",
        "no node of cgw.toml or of the registry has this name",
        f"give one that is there: {known}",
    )


def _places(config: NodeConfig, node: RemoteNode) -> list[DeviceAddress]:
    """Return where this node must have the other one's addresses: guest bridges, then uplink.

    They have the longest prefix, so no route comes with them; and they are never this node's own
    source address (``is_shared``).
    """
    inside = [(config.guest_network_of(address), address) for address in node.node_addresses]
    found = [(network.bridge, address) for network, address in inside if network]
    here = {address: name for v in (4, 6) for address, name in addresses.devices(v).items()}
    found += [
        (here.get(address) or _uplink_device(config, node, address), address)
        for address in node.uplink_addresses
    ]
    return [
        DeviceAddress(device, address, address.max_prefixlen, is_shared=True)
        for device, address in found
    ]


def _uplink_device(config: NodeConfig, node: RemoteNode, address: Address) -> str:
    route = routes.route_to(address)
    is_direct = route and route.kind == "unicast" and not route.gateway
    if route and is_direct and (not config.uplink.devices or route.device in config.uplink.devices):
        return route.device
    raise InvalidConfig(
        f"remote-node {quoted(node.name)}",
        f"uplink-address {address} is on no link of this node's uplink",
        "give the address that it has on the uplink network",
    )


def _refuse_a_living_node(node: RemoteNode, missing: list[DeviceAddress]) -> None:
    places = [announce.Place(place.device, place.address) for place in missing]
    for place in announce.find_answering(places) if places else ():
        raise AddressInUse(
            f"node {quoted(node.name)}",
            f"a host on {place.device} still answers for {place.address}",
            "power the node off, or cut it off from all networks, then run this again",
        )


def _obstacle(publisher: Publisher, *, is_own: bool) -> ReplicationError | None:
    """Return why no flows can be taken over: found out before packets are dropped.

    A node that is back first asks the others for its flows.
    """
    if not conntrackd_config.is_needed(publisher.config):
        return None
    running = replication.daemon(publisher.state)
    try:
        if is_own:
            replication.learn_flows(running)
        else:
            running.received()  # it raises the error if conntrackd does not answer
    except ReplicationError as error:
        return error
    return None


def _take_flows(
    publisher: Publisher, node: RemoteNode
) -> Generator[str, None, ReplicationError | None]:
    """Make the kernel track what a node has tracked; return the error if it cannot."""
    config = publisher.config
    try:
        if config.is_synced:
            # conntrackd has made the kernel track them all the time: as another node's.
            count = flows_of_nodes.own_copies(config, node) if node.name != config.name else 0
            yield f"took over {count} flows of node {quoted(node.name)}"
            return None
        if node.name != config.name:
            count = flows_of_nodes.forget_clashing(config, node)
            yield f"forgot {count} flows to and from node {quoted(node.name)}"
        if not conntrackd_config.is_needed(config):
            yield "note   its connections end: failover.replicate is off in cgw.toml"
        else:
            running = replication.daemon(publisher.state)
            if node.name == config.name and not _is_stood_in_for(node, running):
                yield f"note   no other node has flows of node {quoted(node.name)}"
            else:
                running.commit()
                yield f"took over the flows of node {quoted(node.name)}"
    except ReplicationError as error:
        return error
    return None


def _is_stood_in_for(node: RemoteNode, running: Conntrackd) -> bool:
    """Whether clients have come in to another node by this one's addresses."""
    return not running.destinations().isdisjoint(map(str, node.uplink_addresses))


def _forget_flows_of_living_nodes(publisher: Publisher, dead: RemoteNode) -> None:
    """Delete what the commit has brought of other nodes, which are alive.

    With br_netfilter, their packets to guests may pass through this node; they must not be
    translated here.
    """
    config = publisher.config
    if not conntrackd_config.is_needed(config) or config.is_synced:
        return
    taken = taken_addresses.by_node(publisher.state.gateway_changes())
    others = [n for n in config.remote_nodes if n.name != dead.name and n.name not in taken]
    alive = frozenset(address for node in others for address in flows_of_nodes.addresses(node))
    if node_flows.delete_flows(alive, lambda ends: is_translated_for(ends, alive)):
        # conntrackd has told all nodes of these deletions: they must learn of the flows anew.
        _refresh_other_nodes(publisher)


def _refresh_other_nodes(publisher: Publisher) -> None:
    if conntrackd_config.is_needed(publisher.config):
        replication.refresh_others(replication.daemon(publisher.state))


def _add_addresses(state: State, node: RemoteNode, wanted: list[DeviceAddress]) -> Iterator[str]:
    with state.locked():
        changes = state.gateway_changes()
        taken_addresses.record(changes, node.name, wanted)
        state.write_gateway_changes(changes)
        for place in wanted:
            if links.add_address(place):
                yield f"added  {place.address} to {place.device}"


def _give_back(state: State, name: str) -> Iterator[str]:
    """Delete the addresses that were taken over from a node, those of the uplink first."""
    changes = state.gateway_changes()
    for place in reversed(taken_addresses.by_node(changes).get(name, [])):
        if links.delete_address(place):
            yield f"removed {place.address} from {place.device}"
    if taken_addresses.remove(changes, name):
        state.write_gateway_changes(changes)

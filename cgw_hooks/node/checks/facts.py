"""What the checks of ``cgw doctor`` decide on. Each fact is found out once, when it is needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.packet_filter import Kinds
from cgw_hooks.core.port_packets import Way
from cgw_hooks.core.record import State
from cgw_hooks.errors import CgwError, NotFound, quoted
from cgw_hooks.host import addresses, bridges, link_probe, neighbours, routes, sysctl, tcp_probe
from cgw_hooks.node import diagnosis
from cgw_hooks.node.other_firewalls import read_chains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from cgw_hooks.core.diagnosis import Diagnosis, Row
    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.packet_filter import Chain
    from cgw_hooks.core.policy import Route
    from cgw_hooks.core.problem import Problem
    from cgw_hooks.core.published_port import Address, PublishedPort
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.publisher import Publisher

    #: Device and address -> MAC addresses.
    _Answering = dict[link_probe.Place, set[str]]

#: So many guests that do not answer are tried again.
_MOST_TWICE = 100
#: The states of ports that clients expect to be open.
_EXPECTED = ("published", "pending", "failed")


class GuestPort(NamedTuple):
    """A published port that clients expect to be open."""

    record: Record
    port: PublishedPort
    target: Address
    #: The device on whose link the guest is; empty if no direct route leads to it.
    device: str
    #: The devices by which the port's clients come in, as far as that is known.
    outer: tuple[str, ...]


class Facts:
    """The facts about one node; with ``name``, of guests only those of this name or uuid."""

    def __init__(
        self, publisher: Publisher, name: str | None = None, *, absence: Problem | None = None
    ) -> None:
        self.publisher = publisher
        self.config = publisher.config
        self.name = name
        #: The problem of an agent that does not run.
        self.absence = absence
        self.kinds = Kinds()
        self.route_to = cache(self._route_to)
        self._is_bridge = cache(bridges.is_bridge)
        self._passes_bridged = cache(sysctl.passes_bridged_packets)
        self.networks = cache(addresses.networks)
        self.outer_devices = cache(self._outer_devices)

    @cached_property
    def _diagnosis(self) -> Diagnosis | CgwError:
        try:
            return diagnosis.diagnose(self.publisher, self.name, has_agent=not self.absence)
        except CgwError as error:
            return error

    @property
    def diagnosis(self) -> Diagnosis:
        """All that ``cgw status`` finds. Raises ``CgwError``, each time the same."""
        found = self._diagnosis
        if isinstance(found, CgwError):
            raise found
        return found

    @property
    def rows(self) -> list[Row]:
        """The rows of ``cgw status``. Raises ``CgwError``."""
        return self.diagnosis.rows

    @property
    def problems(self) -> Iterator[Problem]:
        """All problems that ``cgw status`` finds. Raises ``CgwError``."""
        yield from self.diagnosis.problems
        yield from (row.problem for row in self.rows if row.problem)

    @cached_property
    def records(self) -> Mapping[GuestKey, Record]:
        """The records of all guests that can be read."""
        return self.publisher.state.all()[0]

    @cached_property
    def missing_guest(self) -> NotFound | None:
        """The error if a guest was asked for that this node does not know."""
        if self.name is None or self.rows:
            return None
        return NotFound(
            quoted(self.name),
            "no guest of this name is published",
            "publish a port: cgw publish --help",
        )

    @cached_property
    def ways(self) -> list[GuestPort]:
        """The ways of all ports that clients expect to be open. Raises ``CgwError``."""
        found = []
        for row in self.rows:
            port = row.port
            if not port or not port.target_address or row.state not in _EXPECTED:
                continue
            if row.record.state is State.PUBLISHED and port not in row.record.withheld:
                device = self.guest_device(port.target_address)
                outer = self._outer_of(port, device)
                found.append(GuestPort(row.record, port, port.target_address, device, outer))
        return found

    @cached_property
    def chains(self) -> list[Chain]:
        """The base chains of all other programs. Raises ``RulesetError``."""
        return read_chains(self.publisher.nft)

    @cached_property
    def _has_marks(self) -> bool:
        return bool(self.config.steered_networks) or any(c.sets_marks for c in self.chains)

    def packets_of(self, of: GuestPort) -> Way:
        """Return the way of a port's packets, for ``core/port_packets``."""
        is_bridged = self._meets_rules_on_bridge(of.device, of.port.family)
        found = frozenset(filter(self._is_bridge, (of.device, *of.outer)))
        return Way(of.port, of.target, of.device, of.outer, self._has_marks, is_bridged, found)

    def _meets_rules_on_bridge(self, device: str, version: int) -> bool:
        """Whether packets of other nodes to a guest meet the rules of routed ones here."""
        links = {n.bridge for n in self.config.guest_networks if n.internode_devices}
        return device in links and self._passes_bridged(version)

    def guest_device(self, target: Address) -> str:
        """Return the device on whose link a guest is; empty if there is no direct route."""
        network = self.config.guest_network_of(target)
        if network:
            return network.bridge
        route = self.route_to(target)
        return route.device if route and route.kind == "unicast" else ""

    def link_device(self, target: Address) -> str:
        """Return the device on whose link a guest should be, by the node's own addresses."""
        network = self.config.guest_network_of(target)
        if network:
            return network.bridge
        found = [(n, device) for n, device in self.networks(target.version) if target in n]
        return max(found, key=lambda each: each[0].prefixlen)[1] if found else ""

    def _route_to(self, target: Address) -> Route | None:
        try:
            return routes.route_to(target)
        except OSError:
            return None

    def _outer_of(self, port: PublishedPort, device: str) -> tuple[str, ...]:
        """Return the devices by which a port's clients come in, as far as that is known."""
        if self.config.uplink.devices:
            return self.config.uplink.devices
        found, default = self.outer_devices(port.family)
        if not port.listen_address.is_unspecified:
            return tuple(d for a, d in found.items() if a == port.listen_address)
        if default:
            return (default,)
        inner = {network.bridge for network in self.config.guest_networks} | {device}
        return tuple(sorted(set(found.values()) - inner))

    def _outer_devices(self, version: int) -> tuple[dict[Address, str], str]:
        """Return address -> device, and the device of the default route (or empty)."""
        try:
            found = addresses.devices(version)
            outward = addresses.outward(version)
        except OSError:
            return {}, ""
        return found, found.get(outward, "") if outward else ""

    def begin_probes(self) -> None:
        """Begin to ask the guests, in another thread. Raises ``CgwError``."""
        if self.ways:
            self._probes  # noqa: B018  (it begins at its first use)

    @cached_property
    def _probes(self) -> Future[tuple[_Answering, dict[tcp_probe.Target, str]]]:
        guests = {
            (way.device, way.target)
            for way in self.ways
            if way.device and not self._is_behind_router(way.target)
        }
        ports = {
            ((way.device, way.target), (way.target, way.port.to))
            for way in self.ways
            if way.port.protocol == "tcp"
        }
        executor = ThreadPoolExecutor(1)
        try:
            return executor.submit(_probe, guests, self.own_places, ports)
        finally:
            executor.shutdown(wait=False)

    @property
    def answering(self) -> _Answering:
        """Device and address -> the MAC addresses that answer for it now.

        Of guests and, since no other host must have them, of the node itself.
        """
        return self._probes.result()[0]

    @property
    def connections(self) -> dict[tcp_probe.Target, str]:
        """Guest's address and port -> how a TCP connection from this node ends."""
        return self._probes.result()[1]

    @cached_property
    def own_places(self) -> set[link_probe.Place]:
        """The node's own addresses that clients and guests use, with their devices."""
        used = {device for way in self.ways for device in (*way.outer, way.device)}
        found = {(d, a) for v in (4, 6) for a, d in self.outer_devices(v)[0].items() if d in used}
        return {(d, a) for d, a in found if not a.is_link_local}

    def _is_behind_router(self, target: Address) -> bool:
        route = self.route_to(target)
        return bool(route and route.gateway)


def _probe(
    guests: set[link_probe.Place],
    own: set[link_probe.Place],
    ports: set[tuple[link_probe.Place, tcp_probe.Target]],
) -> tuple[_Answering, dict[tcp_probe.Target, str]]:
    """Ask who has the addresses, and connect to the ports whose guest is there.

    Each connection needs an entry of the kernel's neighbour table, whose size is limited: no
    address is tried that nobody has, and no more than there is room for.
    """
    answering = link_probe.who_has(guests, own)
    there = sorted((port for at, port in ports if answering.get(at, True)), key=str)
    tried = {each.address for each in neighbours.neighbours()}
    for version in (4, 6):
        new = dict.fromkeys(a for a, _ in there if a.version == version and a not in tried)
        tried |= set(list(new)[: neighbours.room(version)])
    found = tcp_probe.connect(target for target in there if target[0] in tried)
    silent = [target for target, how in found.items() if how == tcp_probe.SILENT]
    if len(silent) <= _MOST_TWICE:  # a guest, or this host, may be slow at one moment
        found |= tcp_probe.connect(silent)
    return answering, found

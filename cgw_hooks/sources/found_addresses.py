"""The addresses of guests whose annotation names none: found in leases or the neighbour table.

An interface on a libvirt network gets its address from libvirt: a DHCP host entry or a lease. A
guest that has only interfaces on plain bridges has the addresses that the kernel's neighbour table
knows for its MAC addresses.
"""

from __future__ import annotations

import time
from functools import cached_property

from cgw_hooks.core.guest import REGISTRY
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.policy import is_target
from cgw_hooks.core.record import State
from cgw_hooks.host import neighbours, routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from cgw_hooks.core.guest import Guest, Interface
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Address
    from cgw_hooks.core.record import Record
    from cgw_hooks.host.neighbours import Neighbour


def known_addresses(record: Record | None) -> tuple[Address, ...]:
    """Return the addresses that were found for a guest when it was published last.

    The record may be that of the registry: then another node has found them.
    """
    if not record or record.state is not State.PUBLISHED:
        return ()
    if not record.guest.leased and record.key.driver != REGISTRY:
        return ()
    targets = (port.target_address for port in record.guest.ports)
    return tuple(dict.fromkeys(address for address in targets if address))


class Aimed(NamedTuple):
    """A guest whose ports are aimed at other addresses."""

    guest: Guest
    #: Whether its definition may give it more or fewer ports, now that it has addresses of other
    #: IP families: only the definition says in which families a port is to be published.
    may_lack_ports: bool


def aimed_at(guest: Guest, addresses: Collection[Address]) -> Aimed:
    """Return the guest with its present ports aimed at these addresses, one per IP family."""
    known: dict[int, Address] = {address.version: address for address in addresses}
    ports = tuple(p._replace(target_address=known.get(p.family)) for p in guest.ports)
    families = {port.family for port in ports}
    is_open = any(port.listen_address.is_unspecified and not port.sources for port in ports)
    is_same = families == known.keys() or (not known and len(families) == 1)
    return Aimed(guest._replace(ports=ports), is_open and not is_same)


class Look:
    """One look at leases and neighbours, which serves any number of guests.

    The neighbour table is read once; leases are read per guest.
    """

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._now = time.time()

    def found_addresses(
        self, interfaces: Collection[Interface], known: Collection[Address] = ()
    ) -> tuple[Address, ...]:
        """Return the addresses of a guest's interfaces, at most one per IP family.

        ``known`` are the guest's addresses until now. On a plain bridge such an address stays
        until another guest has it, or this guest answers at another address but no longer at
        this one: the kernel forgets neighbours that are silent. Raises ``OSError`` if the kernel
        does not answer.
        """
        if any(interface.network for interface in interfaces):
            from cgw_hooks.host import libvirt_leases  # json

            return libvirt_leases.addresses_of(tuple(interfaces), self._now)
        return tuple(self._on_plain_bridges(list(interfaces), known))

    def outdated(self, guest: Guest) -> list[tuple[Address, str]]:
        """Return those of a guest's addresses that may be outdated, each with its bridge.

        The guest has also answered at another address since. The kernel can find out which one
        is right: see ``neighbours.ask``.
        """
        found = self._own(guest.leased)
        old = []
        for address in {port.target_address for port in guest.ports}:
            entries = [n for n in found if address and n.address.version == address.version]
            if entries and entries[0].address != address:
                old += [(n.address, n.device) for n in entries if n.address == address]
        return old

    @cached_property
    def _neighbours(self) -> list[Neighbour]:
        return sorted(neighbours.neighbours(), key=lambda neighbour: neighbour.age)

    @cached_property
    def _by_place(self) -> dict[tuple[str, str], list[Neighbour]]:
        found: dict[tuple[str, str], list[Neighbour]] = {}
        for neighbour in self._neighbours:
            found.setdefault((neighbour.device, neighbour.mac), []).append(neighbour)
        return found

    @cached_property
    def _holders(self) -> dict[tuple[str, Address], str]:
        return {(n.device, n.address): n.mac for n in self._neighbours}

    def _own(self, interfaces: Iterable[Interface]) -> list[Neighbour]:
        """Return the entries of interfaces on plain bridges, the last confirmed one first."""
        places = dict.fromkeys((i.bridge, i.mac) for i in interfaces if i.bridge and not i.network)
        found = [n for bridge, mac in places for n in self._by_place.get((bridge or "", mac), ())]
        return sorted(found, key=lambda neighbour: neighbour.age)

    def _on_plain_bridges(
        self, interfaces: list[Interface], known: Collection[Address]
    ) -> Iterator[Address]:
        own = [n.address for n in self._own(interfaces) if self._is_usable(n)]
        before = {address.version: address for address in known}
        for family in (4, 6):
            answers = [address for address in own if address.version == family]
            address = before.get(family)
            if address and (
                address in answers or not (answers or self._is_lost(address, interfaces))
            ):
                yield address
            elif answers:
                yield answers[0]

    def _is_lost(self, address: Address, interfaces: list[Interface]) -> bool:
        """Whether another guest has an address now."""
        own = {interface.mac for interface in interfaces}
        holders = {self._holders.get((i.bridge or "", address)) for i in interfaces}
        return not holders <= {None, *own}

    def _is_usable(self, neighbour: Neighbour) -> bool:
        """Whether ports may be aimed at a neighbour: this node reaches it on that same bridge.

        Any guest can claim any address by ARP, also one that is reached elsewhere.
        """
        network = self._config.guest_network_of(neighbour.address)
        if network and network.bridge != neighbour.device:
            return False
        return is_target(neighbour.address, self._config, routes.route_to, {neighbour.device})

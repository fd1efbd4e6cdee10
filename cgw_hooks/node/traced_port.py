"""Finds the published port that `cgw trace GUEST:PORT` means."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse import port_spec
from cgw_hooks.core.record import State, overridden
from cgw_hooks.core.rules.trace_table import Watched
from cgw_hooks.errors import CgwError, NotFound, quoted
from cgw_hooks.host import addresses, routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.parse.port_spec import ListenPorts
    from cgw_hooks.core.published_port import Address, PublishedPort
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.publisher import Publisher


class TracedPort(NamedTuple):
    """One listening port of a guest; it may be published for both IP families."""

    guest: Guest
    ports: tuple[PublishedPort, ...]
    watched: tuple[Watched, ...]

    @property
    def listen(self) -> str:
        """The listening ports as people read them: ``*:8080/tcp``."""
        claims = (port.claim._replace(start=w.port, end=w.port) for port, w in self._pairs())
        return " or ".join(dict.fromkeys(map(str, claims)))

    def _pairs(self) -> list[tuple[PublishedPort, Watched]]:
        return [(p, w) for p in self.ports for w in self.watched if p.target_address == w.target]

    def single_port(self, family: int) -> PublishedPort:
        """Return the same without the other ports of a range."""
        port = self.port_of(family)
        number = self.watched[0].port
        return port._replace(start=number, end=number, to=port.to + number - port.start)

    def port_of(self, family: int) -> PublishedPort:
        """Return the published port of an IP family, or the first one if there is none."""
        return next((port for port in self.ports if port.family == family), self.ports[0])


def find(publisher: Publisher, text: str) -> TracedPort:
    """Find ``GUEST:[ADDRESS:]PORT[/PROTOCOL]``. Raises ``NotFound``, or another ``CgwError``."""
    records, _ = publisher.state.all()
    hidden = overridden(records.values())
    there = [r for r in records.values() if r.key not in hidden and r.is_current]
    record, place = _split(there, text)
    try:
        wanted = port_spec.parse_listen_ports(place)
    except ValueError as error:
        raise NotFound(quoted(place), f"this is no published port; {error}") from None
    ports = [p for p in record.guest.ports if wanted.has_part_of(p.claim)]
    if not ports and "/" not in place:
        ports = [p for p in record.guest.ports if _is_at(p, wanted)]
    if not ports or wanted.start != wanted.end:
        raise NotFound(
            record.guest.title, f"it publishes no single port {place}", _those_of(record)
        )
    if len({port.protocol for port in ports}) > 1:
        raise NotFound(record.guest.title, f"{place} is more than one port", _those_of(record))
    translated = record.translated if record.state is State.PUBLISHED else ()
    ports = [port for port in ports if port in translated]
    if not ports:
        message = f"port {place} does not lead to the guest at present"
        raise NotFound(record.guest.title, message, f"see: cgw status {record.guest.name}")
    watched = _watched(record.guest, ports, wanted.start, publisher.config.uplink.devices)
    return TracedPort(record.guest, tuple(ports), watched)


def _split(records: list[Record], text: str) -> tuple[Record, str]:
    """Return the guest's record and the rest of the text. A name may contain colons."""
    for record in sorted(records, key=lambda record: -len(record.guest.name)):
        for name in filter(None, (record.guest.name, record.guest.uuid)):
            if text.lower().startswith(f"{name.lower()}:") and record.guest.is_called(
                text[: len(name)]
            ):
                return record, text[len(name) + 1 :]
    name = text.partition(":")[0]
    for record in records:
        if record.guest.is_called(text):
            raise NotFound(quoted(text), "no port is given", _those_of(record))
    raise NotFound(quoted(name), "no guest of this name is published", "see: cgw status")


def _is_at(port: PublishedPort, wanted: ListenPorts) -> bool:
    """Whether a port of another protocol has this number."""
    return wanted._replace(protocol=port.protocol).has_part_of(port.claim)


def _those_of(record: Record) -> str:
    name = record.guest.name
    shown = ", ".join(f"{name}:{listed(port)}" for port in record.guest.ports)
    return f"give one of: {shown}" if shown else "publish one: see cgw-publish(1)"


def listed(port: PublishedPort) -> str:
    """Return the listening ports as a person gives them: ``8080/tcp``, ``192.0.2.1:80/tcp``."""
    address = None if port.listen_address.is_unspecified else port.listen_address
    return str(port_spec.ListenPorts(port.protocol, address, port.start, port.end))


def _watched(
    guest: Guest, ports: list[PublishedPort], number: int, uplinks: tuple[str, ...]
) -> tuple[Watched, ...]:
    found = []
    for port in ports:
        own = _outer_first(port, uplinks)
        listening = tuple(own) if port.listen_address.is_unspecified else (port.listen_address,)
        here = tuple(address for address in dict.fromkeys(listening) if address in own)
        if here and port.target_address:
            to = port.to + number - port.start
            found.append(Watched(port.protocol, here, number, port.target_address, to))
    if not found:
        raise CgwError(
            guest.title,
            f"this node does not have the listening address of {ports[0].listen} at present",
            "run it on the node that has the address",
        )
    return tuple(found)


def _outer_first(port: PublishedPort, uplinks: tuple[str, ...]) -> list[Address]:
    """Return the node's addresses; first those that clients use, most probably."""
    own, outward = addresses.devices(port.family), addresses.outward(port.family)
    route = routes.route_to(port.target_address) if port.target_address else None
    guests = route.device if route else ""

    def place(address: Address) -> tuple[bool, ...]:
        device = own[address]
        return device not in uplinks, address != outward, device == guests, address.is_link_local

    return sorted(own, key=place)

"""What a guest asks for, before its address is known: the values of ``<cgw:publish>``."""

from __future__ import annotations

from cgw_hooks.core.guest import Guest
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.published_port import ANY_ADDRESS, PublishedPort
from cgw_hooks.errors import InvalidAnnotation, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.guest import GuestKey, Interface
    from cgw_hooks.core.published_port import Address, Claim, ClientLimits, Network

#: The limits for one guest. A range whose ports keep their numbers needs one element of the #:
#: ruleset per source network; any other range needs one element per port and source network.
MAX_RANGES = 1024
MAX_ELEMENTS = 8192
#: Different limits for clients: each needs a chain of its own.
MAX_LIMITS = 8


class PortForward(NamedTuple):
    """One ``<range>`` with the attributes of its ``<portForward>``.

    ``listen_address`` None means any local address, in each IP family that the guest has.
    ``sources`` empty means any client. ``start``, ``end`` and ``to`` are port numbers.
    """

    protocol: str
    listen_address: Address | None
    sources: tuple[Network, ...]
    start: int
    end: int
    to: int
    #: The end of its time, in seconds since 1970; None if it has no end.
    until: int | None = None
    limits: ClientLimits | None = None

    def has_expired(self, now: float) -> bool:
        """Whether its time has passed."""
        return self.until is not None and self.until <= now

    def families(self, addresses: tuple[Address, ...]) -> Iterator[tuple[int, Address | None]]:
        """Yield each IP family to publish in, with the guest's address (None: not yet known)."""
        known: dict[int, Address] = {address.version: address for address in addresses}
        wanted = self._wanted_families() or set(known) or {4}
        for family in sorted(wanted):
            if not known or family in known:
                yield family, known.get(family)

    def _wanted_families(self) -> set[int]:
        if self.listen_address:
            return {self.listen_address.version}
        return {network.version for network in self.sources}

    def published(self, addresses: tuple[Address, ...]) -> Iterator[PublishedPort]:
        """Yield one published port per IP family."""
        for family, target in self.families(addresses):
            sources = self.sources and tuple(n for n in self.sources if n.version == family)
            if self.sources and not sources:
                continue  # all sources are of the other family: no client may connect here
            listen = self.listen_address or ANY_ADDRESS[family]
            yield PublishedPort(
                self.protocol, listen, self.start, self.end, self.to, target, sources, self.limits
            )

    def __str__(self) -> str:
        """Name the element as a person finds it in the XML."""
        return f'<portForward proto="{self.protocol}"><range start="{self.start}">'


class Annotation(NamedTuple):
    """What one guest's definition says: its identity, its addresses and its port forwards."""

    key: GuestKey
    name: str
    uuid: str
    interfaces: tuple[Interface, ...]
    #: The addresses of the annotation, else those of ``<ip>`` of its interfaces; may be empty.
    addresses: tuple[Address, ...]
    forwards: tuple[PortForward, ...]

    def guest(self, addresses: tuple[Address, ...], now: float = 0.0) -> Guest:
        """Return the guest with its ports, translated to at most one address per IP family.

        ``addresses`` is empty while no address is known. Port forwards whose time has passed at
        ``now`` (seconds since 1970) are left out. Raises ``InvalidAnnotation`` if a port
        forward has no target address of its family, if two port forwards match the same packet,
        or if the guest asks for more than ``MAX_RANGES`` or ``MAX_ELEMENTS``.
        """
        ports: list[PublishedPort] = []
        limits: list[tuple[Claim, int]] = []
        expired: list[tuple[Claim, int]] = []
        for forward in self.forwards:
            if forward.until is not None and forward.has_expired(now):
                expired += [(port.claim, forward.until) for port in forward.published(addresses)]
                continue
            published = list(forward.published(addresses))
            if not published:
                raise self._error(
                    f"{forward}: its listening address or source is of another IP family than "
                    f"the guest's address {', '.join(map(str, addresses))}",
                    "give the guest an address of that family too",
                )
            ports += published
            if forward.until is not None:
                limits += [(port.claim, forward.until) for port in published]
        refuse_excess(self.name, ports)
        bridges = {i.bridge for i in self.interfaces if i.network and i.bridge}
        guest = Guest(self.key, self.name, tuple(ports), self.uuid, tuple(sorted(bridges)))
        if expired:
            claims = set(guest.claims)  # the number of an expired port may be in use again
            limits += [limit for limit in expired if limit[0] not in claims]
        return guest._replace(limits=tuple(limits)) if limits else guest

    def _error(self, message: str, cure: str) -> InvalidAnnotation:
        return InvalidAnnotation(f"guest {quoted(self.name)}", message, cure)


def refuse_excess(name: str, ports: list[PublishedPort]) -> None:
    """Refuse ports of one guest that are too many, or that one packet could match both.

    Raises ``InvalidAnnotation``.
    """
    who = f"guest {quoted(name)}"
    if len(ports) > MAX_RANGES:
        raise InvalidAnnotation(
            who,
            f"<publish> asks for {len(ports)} ranges of ports, counted by IP family",
            f"ask for {MAX_RANGES} at most, for example by joining ranges",
        )
    elements = sum(map(_elements, ports))
    if elements > MAX_ELEMENTS:
        raise InvalidAnnotation(
            who,
            f"<publish> needs {elements} elements in the ruleset: one per port that gets "
            "another number, and per source network",
            f"ask for {MAX_ELEMENTS} at most; a range that keeps its numbers needs only one",
        )
    limits = {port.limits for port in ports if port.limits}
    if len(limits) > MAX_LIMITS:
        raise InvalidAnnotation(
            who,
            f"<publish> has {len(limits)} different limits for clients",
            f"give {MAX_LIMITS} at most: ports may have the same",
        )
    overlap = _first_overlap(ports)
    if overlap:
        raise InvalidAnnotation(
            who,
            f"<range> {overlap[1].listen} and <range> {overlap[0].listen} overlap",
            "publish each listening port once",
        )


def _elements(port: PublishedPort) -> int:
    ports = 1 if port.keeps_numbers else port.end - port.start + 1
    return ports * max(len(port.sources), 1)


def _are_disjoint(ordered: Iterable[PublishedPort]) -> bool:
    """Whether no port number occurs twice in one protocol and IP family, at any address."""
    highest: dict[tuple[str, int], int] = {}
    for port in ordered:
        group = (port.protocol, port.family)
        if highest.get(group, 0) >= port.start:
            return False
        highest[group] = port.end
    return True


def _first_overlap(ports: Iterable[PublishedPort]) -> tuple[PublishedPort, PublishedPort] | None:
    """Return the first two published ports that one packet could match."""
    # The ports are sorted by their first port. So a port overlaps an earlier one if it begins
    # before the highest end of all earlier ones of the same listening address, or of any
    # address.
    furthest: dict[tuple[str, object], PublishedPort] = {}
    ordered = sorted(ports, key=lambda port: port.start)
    if _are_disjoint(ordered):
        return None
    for port in ordered:
        own = (port.protocol, port.listen_address)
        any_address = (port.protocol, ANY_ADDRESS[port.family])
        all_of_family = (port.protocol, port.family)
        is_any = port.listen_address.is_unspecified
        for key in (all_of_family,) if is_any else (own, any_address):
            earlier = furthest.get(key)
            if earlier and earlier.end >= port.start:
                return earlier, port
        for key in (own, all_of_family):
            if key not in furthest or furthest[key].end < port.end:
                furthest[key] = port
    return None

"""What a guest asks for, before its address is known: the values of ``<cgw:publish>``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cgw_hooks.core.guest import Guest
from cgw_hooks.core.published_port import ANY_ADDRESS, PublishedPort
from cgw_hooks.errors import InvalidAnnotation, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.guest import Interface
    from cgw_hooks.core.published_port import Address, Network


class PortForward(NamedTuple):
    """One ``<range>`` with what its ``<portForward>`` says of it.

    ``listen_address`` None is any local address, of every family the guest has.
    """

    protocol: str
    listen_address: Address | None
    sources: tuple[Network, ...]
    start: int
    end: int
    to: int

    def families(self, addresses: tuple[Address, ...]) -> Iterator[tuple[int, Address | None]]:
        """The IP families to publish in, each with the guest's address (None: not yet known)."""
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
        """The same as published ports, one to a family."""
        for family, target in self.families(addresses):
            sources = tuple(network for network in self.sources if network.version == family)
            if self.sources and not sources:
                continue  # limited to sources of the other family: nobody may come in here
            yield PublishedPort(
                protocol=self.protocol,
                listen_address=self.listen_address or ANY_ADDRESS[family],
                start=self.start,
                end=self.end,
                to=self.to,
                target_address=target,
                sources=sources,
            )

    def __str__(self) -> str:
        """Name the element as a person finds it in the XML."""
        return f'<portForward proto="{self.protocol}"><range start="{self.start}">'


class Annotation(NamedTuple):
    """What one guest's definition says: who it is, where it is, what it publishes."""

    driver: str
    uuid: str
    name: str
    interfaces: tuple[Interface, ...]
    #: From the annotation, else from ``<ip>`` of an interface; may be empty.
    addresses: tuple[Address, ...]
    forwards: tuple[PortForward, ...]

    def guest(self, addresses: tuple[Address, ...]) -> Guest:
        """The guest that publishes these ports at its addresses, one to a family (none yet: empty).

        Raises ``InvalidAnnotation`` where a port forward has no address to go to,
        or two want the same packet.
        """
        ports: list[PublishedPort] = []
        for forward in self.forwards:
            published = list(forward.published(addresses))
            if not published:
                raise InvalidAnnotation(
                    f"guest {quoted(self.name)}: {forward}: its listening address or source is of "
                    f"another IP family than the guest's address {_listed(addresses)}; "
                    "give the guest an address of that family too"
                )
            ports += published
        self._refuse_overlap(ports)
        bridges = {i.bridge for i in self.interfaces if i.network and i.bridge}
        return Guest(self.driver, self.uuid, self.name, tuple(ports), tuple(sorted(bridges)))

    def _refuse_overlap(self, ports: list[PublishedPort]) -> None:
        open_ranges: list[PublishedPort] = []
        for port in sorted(ports, key=lambda port: port.start):
            open_ranges = [earlier for earlier in open_ranges if earlier.end >= port.start]
            for earlier in open_ranges:
                if port.overlaps(earlier):
                    raise InvalidAnnotation(
                        f"guest {quoted(self.name)}: <range> {port.listen} and <range> "
                        f"{earlier.listen} overlap; publish each listening port once"
                    )
            open_ranges.append(port)


def _listed(addresses: tuple[Address, ...]) -> str:
    return ", ".join(map(str, addresses))

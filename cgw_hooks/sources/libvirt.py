"""Guests of libvirt's drivers: domain XML -> the Guest that this node would publish."""

from __future__ import annotations

import time

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.parse import domain_scan
from cgw_hooks.core.policy import refuse_unpublishable
from cgw_hooks.core.record import last_published
from cgw_hooks.errors import CgwError, InvalidAnnotation, quoted
from cgw_hooks.host import routes
from cgw_hooks.host.stand_ins import StandIns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

    from cgw_hooks.core.annotation import Annotation
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Address
    from cgw_hooks.core.record import Record
    from cgw_hooks.host.libvirt_api import Definition


def key_of(driver: str, xml: bytes) -> GuestKey:
    """Return the key of a definition's guest; its id is empty if the definition has no uuid."""
    return GuestKey(driver, domain_scan.uuid(xml))


def read_guest(
    config: NodeConfig, driver: str, name: str, xml: bytes, record: Record | None = None
) -> Guest | None:
    """Return the guest with its published ports; None if its definition has no annotation.

    Its address is that of the annotation, else that of an interface's ``<ip>``, else one that is
    found (see ``found_addresses``): a guest may have none before it runs, and then its ports have
    no target address yet. ``record`` is the guest's present record, or that of the registry, None
    if it has none: an address that was found before may stay. Raises ``InvalidAnnotation``.
    """
    with StandIns():
        from cgw_hooks.core.parse.domain_xml import parse_domain  # lxml

    annotation = parse_domain(key_of(driver, xml), name, xml)
    if annotation and not annotation.key.id:
        who = f"guest {quoted(name)}"
        raise InvalidAnnotation(who, "<uuid> is missing", "define the guest again")
    return annotation and guest_of(config, annotation, record)


def guest_of(config: NodeConfig, annotation: Annotation, record: Record | None = None) -> Guest:
    """Return the guest of an annotation, with its addresses; see ``read_guest``.

    Raises ``InvalidAnnotation`` if the node's config does not allow its ports or addresses.
    """
    interfaces = annotation.interfaces
    if annotation.addresses:
        guest = annotation.guest(annotation.addresses, time.time())
    else:
        guest = _found_guest(config, annotation, record)
    bridges = {interface.bridge for interface in interfaces if interface.bridge}
    refuse_unpublishable(guest, config, routes.route_to, bridges)
    return guest


def _found_guest(config: NodeConfig, annotation: Annotation, record: Record | None) -> Guest:
    """Return a guest whose annotation names no address."""
    from cgw_hooks.sources.found_addresses import Look, known_addresses  # only for such a guest

    leased = tuple(interface for interface in annotation.interfaces if interface.network)
    on_bridges = tuple(i for i in annotation.interfaces if i.bridge and i.mac)
    if not (leased or on_bridges):
        raise InvalidAnnotation(
            f"guest {quoted(annotation.name)}",
            "<publish>: the guest's address is not known, and without an interface on a bridge "
            "or a libvirt network cannot be found out",
            'add it: <publish address="...">',
        )
    addresses = Look(config).found_addresses(leased or on_bridges, known_addresses(record))
    if not leased:
        # A guest can answer at addresses of a family that its annotation leaves out.
        addresses = _suiting(annotation, addresses)
    guest = annotation.guest(addresses, time.time())
    return guest._replace(leased=leased or on_bridges)


def _suiting(annotation: Annotation, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """Return the addresses at which the annotation's ports can be published, or none."""
    for some in (addresses, *((address,) for address in addresses)):
        try:
            annotation.guest(some, time.time())
        except InvalidAnnotation:
            continue
        return some
    return ()


class RunningGuests:
    """The running guests of some drivers, which are opened side by side; for ``with``.

    ``seen`` is XML -> guest: what is in it is not parsed again, and guests whose definition alone
    says what they publish are added to it.
    """

    def __init__(
        self, config: NodeConfig, drivers: Iterable[str], seen: dict[bytes, Guest] | None = None
    ) -> None:
        from cgw_hooks.host.libvirt_api import Drivers

        self._config = config
        self._drivers = Drivers(drivers)
        self._seen: dict[bytes, Guest] = {} if seen is None else seen

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drivers.__exit__()

    def of(
        self, driver: str, records: Mapping[GuestKey, Record]
    ) -> Iterator[tuple[GuestKey, Guest | CgwError]]:
        """Yield each running guest of a driver that has an annotation: the guest or its error.

        ``records`` are the present records. Raises ``HypervisorError`` if libvirt does not answer.
        """
        seen = self._seen
        for definition in self._drivers.running_guests(driver):
            key = key_of(driver, definition.xml)
            last = last_published(key, records.get(key), records.get)
            found = seen.get(definition.xml) or read_definition(self._config, definition, last)
            if found:
                if not (isinstance(found, CgwError) or found.leased):
                    seen[definition.xml] = found
                yield key, found


def read_definition(
    config: NodeConfig, definition: Definition, record: Record | None = None
) -> Guest | CgwError | None:
    """Return the guest of a definition, its error, or None without an annotation."""
    if not domain_scan.is_annotated(definition.xml):
        return None
    try:
        return read_guest(config, *definition[:3], record)
    except CgwError as error:
        return error

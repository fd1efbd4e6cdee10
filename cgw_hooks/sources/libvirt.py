"""Guests of libvirt's drivers: domain XML -> the Guest that this node would publish."""

from __future__ import annotations

import time

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.parse import domain_scan
from cgw_hooks.core.policy import refuse_unpublishable
from cgw_hooks.errors import CgwError, InvalidAnnotation, quoted
from cgw_hooks.host import routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.annotation import Annotation
    from cgw_hooks.core.guest import Guest, Interface
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Address
    from cgw_hooks.host.libvirt_api import Definition


def key_of(driver: str, xml: bytes) -> GuestKey:
    """Return the key of a definition's guest; its id is empty if the definition has no uuid."""
    return GuestKey(driver, domain_scan.uuid(xml))


def read_guest(config: NodeConfig, driver: str, name: str, xml: bytes) -> Guest | None:
    """Return the guest with its published ports; None if its definition has no annotation.

    Its address is that of the annotation, else that of an interface's ``<ip>``, else that of a
    DHCP host entry or lease of a libvirt network. A guest on a libvirt network may have no lease
    before it runs: then its ports have no target address yet. Raises ``InvalidAnnotation``.
    """
    from cgw_hooks.core.parse.domain_xml import parse_domain  # lxml

    annotation = parse_domain(key_of(driver, xml), name, xml)
    if annotation and not annotation.key.id:
        who = f"guest {quoted(name)}"
        raise InvalidAnnotation(who, "<uuid> is missing", "define the guest again")
    return annotation and guest_of(config, annotation)


def guest_of(config: NodeConfig, annotation: Annotation) -> Guest:
    """Return the guest of an annotation, with its addresses.

    Raises ``InvalidAnnotation`` if the node's config does not allow its ports or addresses.
    """
    interfaces = annotation.interfaces
    if annotation.addresses:
        guest = annotation.guest(annotation.addresses)
    else:
        leased = tuple(interface for interface in interfaces if interface.network)
        if not leased:
            raise InvalidAnnotation(
                f"guest {quoted(annotation.name)}",
                "<publish>: the guest's address is not known, and on a plain bridge cannot be "
                "found out",
                'add it: <publish address="...">',
            )
        guest = annotation.guest(leased_addresses(leased))._replace(leased=leased)
    bridges = {interface.bridge for interface in interfaces if interface.bridge}
    refuse_unpublishable(guest, config, routes.route_to, bridges)
    return guest


def leased_addresses(interfaces: tuple[Interface, ...]) -> tuple[Address, ...]:
    """Return the addresses that libvirt's networks have given to these interfaces."""
    from cgw_hooks.host import libvirt_leases  # json; only if libvirt gives the address

    return libvirt_leases.addresses_of(interfaces, time.time())


def running(config: NodeConfig, driver: str) -> Iterator[tuple[GuestKey, Guest | CgwError]]:
    """Yield each running guest of a driver that has an annotation: the guest or its error.

    Raises ``HypervisorError`` if libvirt does not answer.
    """
    from cgw_hooks.host import libvirt_api

    for definition in libvirt_api.running_guests(driver):
        found = read_definition(config, definition)
        if found:
            yield key_of(driver, definition.xml), found


def read_definition(config: NodeConfig, definition: Definition) -> Guest | CgwError | None:
    """Return the guest of a definition, its error, or None without an annotation."""
    if not domain_scan.is_annotated(definition.xml):
        return None
    try:
        return read_guest(config, *definition[:3])
    except CgwError as error:
        return error

"""A guest's definition -> the Guest that this node would publish."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cgw_hooks.core.node_config import refuse_unpublishable
from cgw_hooks.core.parse.domain_xml import parse_domain
from cgw_hooks.errors import InvalidAnnotation, quoted
from cgw_hooks.host import libvirt_leases

if TYPE_CHECKING:
    from cgw_hooks.core.annotation import Annotation
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.node_config import NodeConfig


def read_guest(config: NodeConfig, driver: str, name: str, xml: bytes) -> Guest | None:
    """The guest with its published ports; None if its definition has no annotation.

    Its address is the annotation's, else an interface's ``<ip>``, else a host entry
    or lease of a libvirt network. A guest on a libvirt network may have to run before
    it has a lease: its ports then have no target address yet. Raises
    ``InvalidAnnotation``.
    """
    annotation = parse_domain(driver, name, xml)
    if annotation is None:
        return None
    addresses = annotation.addresses or libvirt_leases.addresses_of(
        annotation.interfaces, time.time()
    )
    if not addresses:
        _refuse_without_network(annotation)
    guest = annotation.guest(addresses)
    refuse_unpublishable(guest, config)
    return guest


def _refuse_without_network(annotation: Annotation) -> None:
    if not any(interface.network for interface in annotation.interfaces):
        raise InvalidAnnotation(
            f"guest {quoted(annotation.name)}: <publish>: the guest's address is not known, and on "
            'a plain bridge cannot be found out; say it: <publish address="...">'
        )

"""``cgw check GUEST`` for a plain xl guest: every place that declares ports, and what counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgw_hooks.core.parse import domain_scan
from cgw_hooks.core.parse.vif import configured_vifs, latest, running_vifs
from cgw_hooks.errors import HypervisorError, InvalidAnnotation, PortConflict, quoted
from cgw_hooks.host import libvirt_api, xenstore
from cgw_hooks.sources.xl import configs_of, declarations, guest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.parse import domain_scan
    from cgw_hooks.node.publisher import Publisher
from cgw_hooks.core.parse.vif import Vif


def check_xl_guest(publisher: Publisher, name: str) -> list[str]:
    """A line to each declaration; empty where there is no such guest, or its XML counts.

    Raises ``CgwError``.
    """
    if _is_annotated(name):
        return []
    vifs = _vifs_of(name)
    lines = [line for vif in vifs for line in _lines(publisher, vif)]
    if vifs and not lines:
        raise InvalidAnnotation(f"guest {quoted(name)}: it publishes nothing")
    return lines


def _is_annotated(name: str) -> bool:
    """Whether libvirt knows the guest, and its XML says what to publish."""
    try:
        return domain_scan.is_annotated(libvirt_api.find_guest(name).xml)
    except HypervisorError:
        return False


def _vifs_of(name: str) -> list[Vif]:
    """The vifs that the guest has now; of one that does not run, those of its xl.cfg."""
    try:
        vifs = latest(running_vifs(xenstore.read_tree()))
    except HypervisorError:
        return []
    running = [vif for vif in vifs if vif.guest == name]
    if running:
        return running
    for _path, settings in configs_of(name):
        specs = settings.get("vif", [])
        return list(configured_vifs(name, specs if isinstance(specs, list) else [specs]))
    return []


def _lines(publisher: Publisher, vif: Vif) -> Iterator[str]:
    for number, declared in enumerate(declarations(vif)):
        guest = guest_of(publisher.config, vif, declared)
        conflict = publisher.owners.conflict(guest) if number == 0 else ""
        if conflict:
            raise PortConflict(conflict)
        says = "counts" if number == 0 else "does not count"
        for port in guest.ports:
            yield f"{port}  ({declared.source}: {says})"

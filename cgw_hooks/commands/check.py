"""``cgw check [FILE or GUEST]``: checks what would be published. Applies nothing."""

from __future__ import annotations

import os
import sys
import time
from importlib.util import find_spec

from cgw_hooks.commands import schemas
from cgw_hooks.core.guest import REMOTE, GuestKey
from cgw_hooks.core.parse import domain_scan
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.core.parse.vif import Vif, configured_vifs, latest, running_vifs
from cgw_hooks.core.policy import refuse_unpublishable
from cgw_hooks.errors import (
    CgwError,
    HypervisorError,
    InvalidAnnotation,
    InvalidConfig,
    NotFound,
    quoted,
)
from cgw_hooks.host import libvirt_api, routes, xenstore
from cgw_hooks.node import ports
from cgw_hooks.sources import libvirt, static, xl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.host.libvirt_api import Definition
    from cgw_hooks.node.publisher import Publisher

#: A definition in a file is read as one of this driver.
_DRIVER = "qemu"


def check(publisher: Publisher, subject: str) -> Iterator[str]:
    """Yield one line per port that a subject would publish on this node.

    ``subject`` is a file with domain XML or only the annotation, "-" for standard input, or a
    guest's name. Raises ``CgwError``, also if another guest owns a port.
    """
    if subject == "-":
        yield from _check_xml(publisher, "standard input", sys.stdin.buffer.read())
    elif _is_file(subject):
        yield from _check_xml(publisher, subject, _read_file(subject))
    else:
        yield from _check_guest(publisher, subject)


def check_config_file(path: str) -> None:
    """Check a config file other than the node's own. Raises ``InvalidConfig``."""
    try:
        parse_config(_read_file(path).decode("utf-8"))
    except InvalidConfig as error:
        raise InvalidConfig(f"{path}: {error.subject}", error.message, error.cure) from None
    except UnicodeDecodeError as error:
        raise InvalidConfig(path, str(error), "save the file as UTF-8") from None


def refuse_missing_library(config: NodeConfig) -> None:
    """Refuse this node's config if it needs a library that is not here.

    Raises ``InvalidConfig``.
    """
    if config.metrics and config.metrics.is_told and not _is_installed("prometheus_client"):
        raise InvalidConfig(
            "metrics",
            "it needs the library prometheus_client, which is not installed",
            "run: apt install python3-prometheus-client",
        )


def _is_installed(library: str) -> bool:
    """Whether a library can be loaded; it is not loaded."""
    try:
        return find_spec(library) is not None
    except ValueError:  # it was taken away on purpose
        return False


def is_config(subject: str) -> bool:
    """Whether the subject's name is that of a config file."""
    return subject.endswith(".toml")


def _is_file(subject: str) -> bool:
    """Whether a subject is a file. A folder can have the name of a guest."""
    is_there = os.path.exists(subject) and not os.path.isdir(subject)
    return is_there or "/" in subject or subject.endswith(".xml")


def _check_xml(publisher: Publisher, source: str, xml: bytes) -> Iterator[str]:
    name = domain_scan.name(xml) or os.path.basename(source).removesuffix(".xml")
    guest = _read_xml(publisher, name, xml)
    if guest is None:
        raise InvalidAnnotation(f"guest {quoted(name)}", "<metadata>: it publishes nothing")
    schemas.refuse_difference(name, xml)
    yield from _lines(publisher, guest)


def _read_xml(publisher: Publisher, name: str, xml: bytes) -> Guest | None:
    if domain_scan.uuid(xml):
        return libvirt.read_guest(publisher.config, _DRIVER, name, xml)
    from cgw_hooks.core.parse.domain_xml import parse_domain

    annotation = parse_domain(GuestKey(_DRIVER, name), name, xml)
    if annotation is None or annotation.addresses or domain_scan.name(xml):
        return annotation and libvirt.guest_of(publisher.config, annotation)
    # Only the annotation: how the guest gets its address is in the rest of its definition.
    guest = annotation.guest((), time.time())
    refuse_unpublishable(guest, publisher.config, routes.route_to)
    return guest


def _check_guest(publisher: Publisher, name: str) -> Iterator[str]:
    definitions: list[Definition] = []
    silent: HypervisorError | None = None
    try:
        definitions = libvirt_api.find_guest(name)
    except HypervisorError as error:
        silent = error
    vifs = _vifs_of(name)
    if any(domain_scan.is_annotated(definition.xml) for definition in definitions):
        yield from _check_definitions(publisher, definitions)
        return
    if vifs:
        lines = [line for vif in vifs for line in _vif_lines(publisher, vif)]
        if lines:
            yield from lines
            return
    if definitions or vifs:
        raise InvalidAnnotation(f"guest {quoted(name)}", "it publishes nothing")
    remote = dict(static.remote_guests(publisher.config)).get(GuestKey(REMOTE, name))
    if isinstance(remote, CgwError):
        raise remote
    if remote:
        yield from (f"{port}  (of another node)" for port in remote.ports)
        return
    if silent:
        raise silent
    raise NotFound(quoted(name), "there is no such guest or file", "see: virsh list --all")


def _check_definitions(publisher: Publisher, definitions: list[Definition]) -> Iterator[str]:
    """Check the live definition, and the one for the next start if it differs."""
    shown: list[str] = []
    for definition in definitions:
        guest = libvirt.read_guest(publisher.config, *definition[:3])
        lines = list(_lines(publisher, guest)) if guest else ["nothing is published"]
        schemas.refuse_difference(definition.name, definition.xml)
        if lines != shown:
            note = "  (from the next start on)" if shown else ""
            yield from (line + note for line in lines)
        shown = lines


def _vifs_of(name: str) -> list[Vif]:
    """Return the guest's present vifs, or those of its xl.cfg if it does not run."""
    try:
        vifs = latest(running_vifs(xenstore.read_tree()))
    except HypervisorError:
        return []
    running = [vif for vif in vifs if vif.is_of(name)]
    if running:
        return running
    for _path, settings in xl.configs_of(name):
        from cgw_hooks.core.parse.xl_cfg import strings

        return list(configured_vifs(name, strings(settings.get("vif", []))))
    return []


def _vif_lines(publisher: Publisher, vif: Vif) -> Iterator[str]:
    for number, declared in enumerate(xl.declarations(vif)):
        guest = xl.guest_of(publisher.config, vif, declared)
        if number == 0:
            list(_lines(publisher, guest))
        says = "counts" if number == 0 else "does not count"
        for port in guest.ports:
            yield f"{port}  ({declared.source}: {says})"


def _lines(publisher: Publisher, guest: Guest) -> Iterator[str]:
    """Yield the guest's ports. Raises ``PortConflict`` if another owner has one of them."""
    ports.refuse_conflict(publisher.state, guest)
    ports.refuse_taken(guest, ports.node_listeners([guest]))
    yield from map(str, guest.ports)


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise NotFound(path, "there is no such file") from error
    except OSError as error:
        raise CgwError(path, f"it cannot be read: {error.strerror}") from error

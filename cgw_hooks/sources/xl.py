"""Plain xl guests: declarations of ports -> the Guest that this node would publish.

The first declaration found counts, in this order: ``gatewaydev=cgw ...`` of the vif; then, only
for the guest's first vif, /etc/cgw/guests.d/NAME.xml; then ``cgw_publish`` in its xl.cfg.
"""

from __future__ import annotations

import time

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse.vif import latest, running_vifs
from cgw_hooks.core.policy import refuse_unpublishable
from cgw_hooks.errors import CgwError, InvalidAnnotation, quoted
from cgw_hooks.host import routes, xl_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgw_hooks.core.annotation import Annotation
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.parse.vif import Vif
    from cgw_hooks.core.parse.xl_cfg import Value

KEY = "cgw_publish"


class Declaration(NamedTuple):
    """What one source declares for a vif."""

    source: str
    annotation: Annotation


def is_published_by_libvirt(uuid: str, is_known: Callable[[GuestKey], bool]) -> bool:
    """Whether libvirt's own hook publishes a Xen guest, so that the vif script must not.

    ``is_known`` says whether libvirt publishes the guest with a key. The vif script must not ask
    libvirt, so it looks for the guest's record; other callers look for the guest's annotation.
    """
    return bool(uuid) and is_known(GuestKey("libxl", uuid))


def running(
    config: NodeConfig, is_known: Callable[[GuestKey], bool]
) -> Iterator[tuple[GuestKey, Guest | CgwError | None]]:
    """Yield each vif that publishes ports: the guest, its error, or None.

    None means that the guest migrates to this same host. The migration may still fail, so the
    record of the old vif stays until that vif is removed. Raises ``HypervisorError`` if xenstore
    does not answer.
    """
    from cgw_hooks.host import xenstore

    vifs = running_vifs(xenstore.read_tree())
    new = latest(vifs)
    for vif in vifs:
        if vif not in new:
            yield vif.key, None
        elif not is_published_by_libvirt(vif.uuid, is_known):
            try:
                guest = read_vif(config, vif)
            except CgwError as error:
                yield vif.key, error
            else:
                if guest:
                    yield vif.key, guest


def read_vif(config: NodeConfig, vif: Vif) -> Guest | None:
    """Return the guest with its ports at one vif, or None. Raises ``InvalidAnnotation``."""
    declared = next(declarations(vif), None)
    return declared and guest_of(config, vif, declared)


def declarations(vif: Vif) -> Iterator[Declaration]:
    """Yield the declarations for a vif; the first one counts. Raises ``InvalidAnnotation``."""
    if vif.own_words is not None:
        source = f"gatewaydev of {vif.name}"
        yield Declaration(source, vif.annotation(vif.own_words, source))
    if vif.number != 0:
        return
    path = xl_files.annotation_file(vif.guest)
    xml = xl_files.read(path) if path else None
    if xml is not None:
        from cgw_hooks.core.parse.domain_xml import parse_domain  # lxml

        annotation = parse_domain(vif.key, vif.guest, xml)
        if annotation:
            addresses = annotation.addresses or vif.addresses()
            yield Declaration(path, annotation._replace(uuid=vif.uuid, addresses=addresses))
    for path, settings in configs_of(vif.guest):
        if KEY in settings:
            source = f"{KEY} in {path}"
            yield Declaration(path, vif.annotation(_words(vif, source, settings[KEY]), source))


def _words(vif: Vif, source: str, value: Value) -> list[str]:
    """Return the short forms of ``cgw_publish``; a nested list is refused, not ignored."""
    from cgw_hooks.core.parse.xl_cfg import strings

    words = strings(value)
    if isinstance(value, list) and len(words) < len(value):
        raise InvalidAnnotation(
            f"guest {quoted(vif.guest)}",
            f"{source} has a list within the list",
            'write one list: ["2202:22/tcp", "123/udp"]',
        )
    return words


def guest_of(config: NodeConfig, vif: Vif, declared: Declaration) -> Guest:
    """Return the guest of a declaration. Raises ``InvalidAnnotation``."""
    annotation = declared.annotation
    if not annotation.addresses:
        raise InvalidAnnotation(
            f"guest {quoted(vif.guest)}",
            f"{declared.source}: the guest's address is not known",
            "add it to its vif: ip=...",
        )
    guest = annotation.guest(annotation.addresses, time.time())._replace(device=vif.device)
    refuse_unpublishable(guest, config, routes.route_to, {vif.bridge} - {""})
    return guest


def configs_of(guest: str) -> Iterator[tuple[str, dict[str, Value]]]:
    """Yield the xl.cfg files whose ``name`` is the guest's name.

    A file that cannot be read or parsed is ignored, unless its file name is the guest's name. Then
    this raises ``InvalidConfig`` or ``InvalidAnnotation``.
    """
    from cgw_hooks.core.parse.xl_cfg import parse_xl_config  # re: 6 ms

    for path, text in xl_files.configs(guest):
        if guest not in text or "name" not in text:
            continue
        try:
            settings = parse_xl_config(text)
        except ValueError as error:
            if KEY in text and xl_files.is_named_after(path, guest):
                who = f"guest {quoted(guest)}"
                raise InvalidAnnotation(who, f"{path}: {error}", "correct the file") from None
            continue
        if settings.get("name") == guest:
            yield path, settings

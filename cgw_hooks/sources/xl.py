"""Where a plain xl guest declares its ports -> the Guest that this node would publish.

The first that is there counts: ``gatewaydev=cgw ...`` of the vif; for the guest's
first vif also /etc/cgw/guests.d/NAME.xml, and ``cgw_publish`` in its xl.cfg.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cgw_hooks.core.node_config import refuse_unpublishable
from cgw_hooks.core.parse.vif import DRIVER
from cgw_hooks.errors import InvalidAnnotation, quoted
from cgw_hooks.host import xl_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.annotation import Annotation
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.parse.vif import Vif
    from cgw_hooks.core.parse.xl_cfg import Value

KEY = "cgw_publish"


class Declaration(NamedTuple):
    """What one place says of a vif."""

    source: str
    annotation: Annotation


def declarations(vif: Vif) -> Iterator[Declaration]:
    """What is declared for a vif, the one that counts first. Raises ``InvalidAnnotation``."""
    if vif.own_words is not None:
        source = f"gatewaydev of {vif.name}"
        yield Declaration(source, vif.annotation(vif.own_words, source))
    if vif.device != 0:
        return
    path = xl_files.annotation_file(vif.guest)
    xml = xl_files.read(path) if path else None
    if xml is not None:
        from cgw_hooks.core.parse.domain_xml import parse_domain  # lxml

        annotation = parse_domain(DRIVER, vif.guest, xml)
        if annotation:
            addresses = annotation.addresses or vif.addresses()
            yield Declaration(path, annotation._replace(uuid=vif.name, addresses=addresses))
    for path, settings in configs_of(vif.guest):
        if KEY in settings:
            value = settings[KEY]
            words = value if isinstance(value, list) else [value]
            yield Declaration(path, vif.annotation(words, f"{KEY} in {path}"))


def read_vif(config: NodeConfig, vif: Vif) -> Guest | None:
    """The guest with what it publishes at one vif; None: nothing. Raises ``InvalidAnnotation``."""
    declared = next(declarations(vif), None)
    return declared and guest_of(config, vif, declared)


def guest_of(config: NodeConfig, vif: Vif, declared: Declaration) -> Guest:
    """A declaration with its addresses, held against the node's config."""
    annotation = declared.annotation
    if not annotation.addresses:
        raise InvalidAnnotation(
            f"guest {quoted(vif.guest)}: {declared.source}: the guest's address is not known; "
            "say it in its vif: ip=..."
        )
    guest = annotation.guest(annotation.addresses)._replace(lasting_id=vif.lasting_id)
    refuse_unpublishable(guest, config)
    return guest


def configs_of(guest: str) -> Iterator[tuple[str, dict[str, Value]]]:
    """The xl.cfg files whose ``name`` is the guest's.

    One that cannot be read is nobody's, unless it is called as the guest is.
    """
    from cgw_hooks.core.parse.xl_cfg import parse_xl_config  # re: 6 ms

    for path, text in xl_files.configs():
        if guest not in text or "name" not in text:
            continue
        try:
            settings = parse_xl_config(text)
        except ValueError as error:
            if KEY in text and path.endswith((f"/{guest}", f"/{guest}.cfg")):
                raise InvalidAnnotation(f"guest {quoted(guest)}: {path}: {error}") from None
            continue
        if settings.get("name") == guest:
            yield path, settings

"""Where a guest's annotation is: in libvirt's definitions of the guest, or in a file for xl.

libvirt decides if both know the guest's name. Nobody must use this while holding the node's lock.
"""

from __future__ import annotations

from cgw_hooks.core import annotation_edit
from cgw_hooks.core.guest import XL, GuestKey
from cgw_hooks.core.parse import domain_scan
from cgw_hooks.core.parse.domain_xml import NAMESPACE, parse_domain
from cgw_hooks.core.parse.vif import Vif, configured_vifs, latest, running_vifs
from cgw_hooks.errors import HypervisorError, InvalidAnnotation, NotFound, quoted
from cgw_hooks.host import libvirt_api, xenstore, xl_files
from cgw_hooks.node.match import Look
from cgw_hooks.sources import libvirt, xl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.host.libvirt_api import Domain
    from cgw_hooks.node.publisher import Publisher

#: The definition of the running guest, and that of its next start; the words of virsh.
LIVE, CONFIG = "live", "config"
#: libvirt writes ``<cgw:publish xmlns:cgw="urn:cgw-hooks:1">``.
_PREFIX = "cgw"


class LibvirtStore:
    """The annotations of one guest of libvirt. ``chosen`` are the places to use, if not all."""

    def __init__(self, publisher: Publisher, domain: Domain, chosen: Collection[str]) -> None:
        self.name = domain.name
        self.key = GuestKey(domain.driver, domain.uuid)
        self._config = publisher.config
        self._state = publisher.state
        self._domain = domain
        self._chosen = chosen

    def close(self) -> None:
        """Close the connection to libvirt."""
        self._domain.close()

    def places(self) -> tuple[str, ...]:
        """Return where the annotation must be written now. Raises ``NotFound``."""
        there = {CONFIG: self._domain.is_persistent(), LIVE: self._domain.is_running()}
        who = f"guest {quoted(self.name)}"
        if LIVE in self._chosen and not there[LIVE]:
            raise NotFound(who, "it does not run, so it has no live definition", "omit --live")
        if CONFIG in self._chosen and not there[CONFIG]:
            raise NotFound(who, "it is transient, so it has no config", "omit --config")
        return tuple(p for p, is_there in there.items() if is_there and self._is_chosen(p))

    def _is_chosen(self, place: str) -> bool:
        return not self._chosen or place in self._chosen

    def runs_by(self, place: str) -> bool:
        """Whether the running guest's ports follow from this place."""
        return place == LIVE

    def read(self, place: str) -> str | None:
        """Return the annotation; None if there is none."""
        return self._domain.annotation(NAMESPACE, live=place == LIVE)

    def write(self, place: str, annotation: str | None) -> None:
        """Replace or remove the annotation."""
        self._domain.write_annotation(NAMESPACE, _PREFIX, annotation, live=place == LIVE)

    def guest(self, place: str, annotation: str | None) -> Guest | None:
        """Return what the guest would publish with an annotation. Raises ``InvalidAnnotation``."""
        xml = self._domain.definition(live=place == LIVE)
        return self._read(annotation_edit.definition_with(self.name, xml, annotation))

    def look(self) -> Look:
        """Return what runs now, and what it publishes."""
        try:
            if not self._domain.is_running():
                return Look(is_running=False)
            xml = self._domain.definition(live=True)
            is_arriving = self._domain.is_arriving()
        except NotFound:  # it was transient
            return Look(is_running=False)
        return Look(is_running=True, is_arriving=is_arriving, guest=self._read(xml))

    def _read(self, xml: bytes) -> Guest | None:
        if not domain_scan.is_annotated(xml):
            return None
        record = self._state.peek(self.key)
        return libvirt.read_guest(self._config, self.key.driver, self.name, xml, record)


class XlStore:
    """The annotation of a plain xl guest: guests.d/NAME.xml, for the guest's first vif."""

    def __init__(self, config: NodeConfig, vif: Vif) -> None:
        self.name = vif.guest
        self.key = vif.key
        self._config = config
        self._vif = vif
        self._path = xl_files.annotation_file(vif.guest)
        #: What the guest's xl.cfg declares, if there is no file.
        self._from_config: str | None = None
        if not self._path:
            raise InvalidAnnotation(f"guest {quoted(self.name)}", "no file can have this name")
        if vif.own_words is not None:
            raise InvalidAnnotation(
                f"guest {quoted(self.name)}",
                f"gatewaydev of its {vif.name} declares its ports, and counts before any file",
                "change them there",
            )

    def close(self) -> None:
        """Do nothing: no connection is open."""

    def places(self) -> tuple[str, ...]:
        """Return the file's path."""
        return (self._path,)

    def runs_by(self, _place: str) -> bool:
        """Whether the running guest's ports follow from this place."""
        return True

    def read(self, _place: str) -> str | None:
        """Return the file's text; without a file, what the guest's xl.cfg declares."""
        xml = xl_files.read(self._path)
        if xml is not None:
            return xml.decode("utf-8", "replace")
        declared = next(xl.declarations(self._vif), None)
        if declared is None:
            return None
        forwards = declared.annotation.forwards
        self._from_config = annotation_edit.add(self.name, None, forwards, 0.0)
        return self._from_config

    def write(self, _place: str, annotation: str | None) -> None:
        """Replace or remove the file. Raises ``InvalidConfig``."""
        if annotation is None and any(xl.KEY in found for _, found in xl.configs_of(self.name)):
            annotation = annotation_edit.EMPTY  # so that the ports of its xl.cfg do not count
        if annotation is None or annotation == self._from_config:
            xl_files.remove(self._path)
        else:
            xl_files.write(self._path, annotation)

    def guest(self, _place: str, annotation: str | None) -> Guest | None:
        """Return what the guest would publish with an annotation. Raises ``InvalidAnnotation``."""
        if annotation is None:
            return None
        found = parse_domain(self._vif.key, self.name, annotation.encode())
        if found is None:
            return None
        addresses = found.addresses or self._vif.addresses()
        found = found._replace(uuid=self._vif.uuid, addresses=addresses)
        return xl.guest_of(self._config, self._vif, xl.Declaration(self._path, found))

    def look(self) -> Look:
        """Return what runs now, and what it publishes."""
        for vif in _running_vifs(self.name):
            if vif.key == self.key:
                return Look(is_running=True, guest=xl.read_vif(self._config, vif))
        return Look(is_running=False)


Store = LibvirtStore | XlStore


def open_store(publisher: Publisher, name: str, chosen: Collection[str] = ()) -> Store:
    """Return where the annotation of the guest ``name`` is; the caller must close it.

    Raises ``NotFound``, or ``HypervisorError`` if nobody answers.
    """
    silent: HypervisorError | None = None
    try:
        domain = libvirt_api.open_guest(name)
    except HypervisorError as error:
        silent, domain = error, None
    if domain:
        return LibvirtStore(publisher, domain, chosen)
    vif = _first_vif(name)
    if vif and chosen:
        raise NotFound(
            f"guest {quoted(name)}", "it is a guest of xl and has no live or persistent XML",
            "omit --live and --config",
        )  # fmt: skip
    if vif:
        return XlStore(publisher.config, vif)
    if silent:
        raise silent
    raise NotFound(quoted(name), "there is no such guest", "see: virsh list --all")


def open_store_of(publisher: Publisher, key: GuestKey, name: str) -> Store | None:
    """Return where the annotation of a recorded guest is; None if it is gone."""
    if key.driver == XL:
        vif = _first_vif(name)
        return XlStore(publisher.config, vif) if vif and vif.own_words is None else None
    domain = None if key.is_remote else libvirt_api.open_guest_of(key)
    return LibvirtStore(publisher, domain, ()) if domain else None


def _first_vif(name: str) -> Vif | None:
    """Return the first vif of an xl guest that runs, or has a config in /etc/xen."""
    vifs = _running_vifs(name)
    if not vifs:
        from cgw_hooks.core.parse.xl_cfg import strings

        for _path, settings in xl.configs_of(name):
            vifs = list(configured_vifs(name, strings(settings.get("vif", []))))
            break
    return next((vif for vif in vifs if vif.number == 0), None)


def _running_vifs(name: str) -> list[Vif]:
    try:
        vifs = latest(running_vifs(xenstore.read_tree()))
    except HypervisorError:
        return []
    return [vif for vif in vifs if vif.is_of(name)]

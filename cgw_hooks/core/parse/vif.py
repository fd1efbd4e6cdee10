"""Xen's settings of one network device of a guest -> what the guest publishes at that device."""

from __future__ import annotations

from cgw_hooks.core.annotation import Annotation
from cgw_hooks.core.guest import XL, GuestKey, Interface
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse import fields
from cgw_hooks.core.parse.port_spec import parse_port_spec
from cgw_hooks.errors import InvalidAnnotation, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cgw_hooks.core.published_port import Address

#: The first word of a ``gatewaydev=`` for cgw; xl passes the text on to the vif script.
_MARK = "cgw"
_WHILE_MIGRATING = ("--incoming", "--migratedaway")


class Vif(NamedTuple):
    """One network device. ``name`` is the kernel's name, ``vifDOMID.DEVID``."""

    name: str
    guest: str
    #: The guest's uuid. A migration keeps it, but changes the domain's number.
    uuid: str
    ip: str = ""
    gatewaydev: str = ""
    bridge: str = ""

    @property
    def domain(self) -> int:
        """The domain's number (DOMID)."""
        return int(self.name.removeprefix("vif").partition(".")[0])

    @property
    def number(self) -> int:
        """The device's number within the guest (DEVID)."""
        return int(self.name.rpartition(".")[2])

    @property
    def key(self) -> GuestKey:
        """The key of the device's record."""
        return GuestKey(XL, self.name)

    @property
    def device(self) -> str:
        """Stable ID of the device: the record key changes on migration, this does not."""
        return f"{self.uuid}.{self.number}" if self.uuid else ""

    def is_of(self, name: str) -> bool:
        """Whether a person means the device's guest: ``name`` is the guest's name or uuid."""
        return name == self.guest or (bool(self.uuid) and name.lower() == self.uuid.lower())

    @property
    def own_words(self) -> list[str] | None:
        """The short forms of ``gatewaydev=cgw ...``; None if the setting is not for cgw."""
        words = self.gatewaydev.split()
        return words[1:] if words[:1] == [_MARK] else None

    def addresses(self) -> tuple[Address, ...]:
        """Return the addresses of ``ip=``, one per IP family.

        Other words of ``ip=`` are for other scripts, and are ignored.
        """
        first: dict[int, Address] = {}
        for word in self.ip.split():
            try:
                address = fields.parse_guest_address(word)
            except ValueError:
                continue
            first.setdefault(address.version, address)
        return tuple(first.values())

    def annotation(self, words: Iterable[str], source: str) -> Annotation:
        """Make an annotation of short forms for this device. Raises ``InvalidAnnotation``."""
        words = list(words)
        who = f"guest {quoted(self.guest)}"
        if not words:
            raise InvalidAnnotation(who, f"{source} names no port", "add one: 2202:22/tcp")
        forwards = []
        for word in words:
            try:
                forwards.append(parse_port_spec(word))
            except ValueError as error:
                message = f"{source}: {quoted(word)} cannot be used"
                raise InvalidAnnotation(who, message, str(error)) from None
        interfaces = (Interface("", bridge=self.bridge),) if self.bridge else ()
        return Annotation(
            self.key, self.guest, self.uuid, interfaces, self.addresses(), tuple(forwards)
        )


def guest_name(name: str) -> str:
    """Return a guest's name without the suffix that xl adds during a migration."""
    for suffix in _WHILE_MIGRATING:
        name = name.removesuffix(suffix)
    return name


def backend_vif(name: str, guest: str, vm_path: str, backend: Mapping[str, str]) -> Vif:
    """Make a device of its backend's keys in xenstore; ``vm_path`` is ``/vm/UUID``."""
    return Vif(
        name,
        guest_name(guest),
        vm_path.rpartition("/")[2],
        backend.get("ip", ""),
        backend.get("gatewaydev", ""),
        backend.get("bridge", ""),
    )


def running_vifs(tree: Mapping[str, str]) -> list[Vif]:
    """Return all devices in xenstore. ``tree``: path under /local/domain -> value."""
    backends: dict[tuple[str, str], dict[str, str]] = {}
    for path, value in tree.items():
        match path.split("/")[3:]:
            case [_, "backend", "vif", domain, device, key] if domain.isdigit():
                backends.setdefault((domain, device), {})[key] = value
    vifs = []
    for (domain, device), backend in backends.items():
        home = f"/local/domain/{domain}"
        if f"{home}/name" in tree:
            guest, vm_path = tree[f"{home}/name"], tree.get(f"{home}/vm", "")
            vifs.append(backend_vif(f"vif{domain}.{device}", guest, vm_path, backend))
    return vifs


def latest(vifs: Iterable[Vif]) -> list[Vif]:
    """Return the devices, but only the new ones of a guest that migrates to this same host."""
    found: dict[str, Vif] = {}
    for vif in sorted(vifs, key=lambda vif: vif.domain):
        found[vif.device or vif.name] = vif
    return list(found.values())


def configured_vifs(guest: str, specs: Iterable[str]) -> Iterator[Vif]:
    """Yield the devices of ``vif = [...]`` in the xl.cfg of a guest that does not run."""
    for number, spec in enumerate(specs):
        given = dict(field.strip().partition("=")[::2] for field in spec.split(","))
        found = (given.get(key, "") for key in ("ip", "gatewaydev", "bridge"))
        yield Vif(f"vif0.{number}", guest, "", *found)

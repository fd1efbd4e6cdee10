"""What Xen says of one network device of a guest -> what the guest publishes there."""

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

#: First word of a ``gatewaydev=`` that is ours; xl hands the text on to the vif script.
_MARK = "cgw"
_WHILE_MIGRATING = ("--incoming", "--migratedaway")


class Vif(NamedTuple):
    """One network device. ``name`` is the kernel's, ``vifDOMID.DEVID``."""

    name: str
    guest: str
    #: The guest's: the same after a migration, where the domain's number is not.
    uuid: str
    ip: str = ""
    gatewaydev: str = ""
    bridge: str = ""

    @property
    def domain(self) -> int:
        """The domain's number."""
        return int(self.name.removeprefix("vif").partition(".")[0])

    @property
    def number(self) -> int:
        """Its number among the guest's own."""
        return int(self.name.rpartition(".")[2])

    @property
    def key(self) -> GuestKey:
        """What its record is filed under."""
        return GuestKey(XL, self.name)

    @property
    def device(self) -> str:
        """Stable ID of the device: the record key changes on migration, this does not."""
        return f"{self.uuid}.{self.number}" if self.uuid else ""

    @property
    def own_words(self) -> list[str] | None:
        """What ``gatewaydev=cgw ...`` publishes, in the short form; None: it is not ours."""
        words = self.gatewaydev.split()
        return words[1:] if words[:1] == [_MARK] else None

    def addresses(self) -> tuple[Address, ...]:
        """Those of ``ip=``, one to a family; what is no guest's address is for other scripts."""
        first: dict[int, Address] = {}
        for word in self.ip.split():
            try:
                address = fields.parse_guest_address(word)
            except ValueError:
                continue
            first.setdefault(address.version, address)
        return tuple(first.values())

    def annotation(self, words: Iterable[str], source: str) -> Annotation:
        """What short forms mean at this device. Raises ``InvalidAnnotation``."""
        words = list(words)
        who = f"guest {quoted(self.guest)}"
        if not words:
            raise InvalidAnnotation(who, f"{source} names no port", "say which, as 2202:22/tcp")
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
    """A guest's own name, without what xl adds to it while it migrates."""
    for suffix in _WHILE_MIGRATING:
        name = name.removesuffix(suffix)
    return name


def backend_vif(name: str, guest: str, vm_path: str, backend: Mapping[str, str]) -> Vif:
    """A device by the keys of its backend in xenstore; ``vm_path`` is ``/vm/UUID``."""
    return Vif(
        name,
        guest_name(guest),
        vm_path.rpartition("/")[2],
        backend.get("ip", ""),
        backend.get("gatewaydev", ""),
        backend.get("bridge", ""),
    )


def running_vifs(tree: Mapping[str, str]) -> list[Vif]:
    """All devices in xenstore (paths under /local/domain -> values)."""
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
    """Of a guest that is migrating to this host itself, only its new devices."""
    found: dict[str, Vif] = {}
    for vif in sorted(vifs, key=lambda vif: vif.domain):
        found[vif.device or vif.name] = vif
    return list(found.values())


def configured_vifs(guest: str, specs: Iterable[str]) -> Iterator[Vif]:
    """The devices of ``vif = [...]`` in xl.cfg, of a guest that does not run."""
    for number, spec in enumerate(specs):
        given = dict(field.strip().partition("=")[::2] for field in spec.split(","))
        found = (given.get(key, "") for key in ("ip", "gatewaydev", "bridge"))
        yield Vif(f"vif0.{number}", guest, "", *found)

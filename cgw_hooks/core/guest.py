"""A guest, its key and its published ports."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address, Claim, PublishedPort

#: The "driver" of a remote guest that the config names: another node runs it, this node publishes
#: its ports as well.
REMOTE = "remote"
#: The "driver" of a remote guest that the cluster's registry names.
REGISTRY = "registry"
#: The "driver" of one network device of a plain xl guest.
XL = "xl"


class GuestKey(NamedTuple):
    """The key of a guest's record and claims, written ``DRIVER-ID``.

    ``id`` is the uuid of a libvirt guest or of a remote guest that the registry names, or
    ``vifDOMID.DEVID`` for a network device of an xl guest, or the name of a remote guest that the
    config names.
    """

    driver: str
    id: str

    def __str__(self) -> str:
        """The key as text."""
        return f"{self.driver}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> GuestKey:
        """Read what ``str()`` wrote."""
        driver, _, rest = text.partition("-")
        return cls(driver, rest)

    @property
    def is_remote(self) -> bool:
        """Whether another node runs the guest."""
        return self.driver in {REMOTE, REGISTRY}


class Interface(NamedTuple):
    """One network interface of a guest, as its definition says.

    ``network`` is the name of its libvirt network, None on a plain bridge. ``bridge`` is the
    name of its bridge, None if the definition does not say.
    """

    mac: str
    network: str | None = None
    bridge: str | None = None
    addresses: tuple[Address, ...] = ()


class Guest(NamedTuple):
    """A guest with its published ports, translated to its known addresses."""

    key: GuestKey
    name: str
    ports: tuple[PublishedPort, ...] = ()
    #: Empty for a remote guest whose config entry has no uuid.
    uuid: str = ""
    #: Bridges of the guest's libvirt networks; libvirt's firewall rejects what comes in to
    #: these.
    network_bridges: tuple[str, ...] = ()
    #: Stable ID of an xl device (UUID.DEVID): the record key changes on migration, this does not.
    device: str = ""
    #: Interfaces whose DHCP host entry or lease gave the addresses; empty if the definition did.
    leased: tuple[Interface, ...] = ()
    #: The ports that are published for a limited time: claim, and end in seconds since 1970. A
    #: claim without a port is one whose time has passed, and that the annotation still names.
    limits: tuple[tuple[Claim, int], ...] = ()

    @property
    def until(self) -> int | None:
        """The earliest end of a port's time, in seconds since 1970; None if no port has one."""
        if not self.limits:
            return None
        claims = set(self.claims)
        return min((end for claim, end in self.limits if claim in claims), default=None)

    @property
    def names_expired(self) -> bool:
        """Whether the guest's annotation still names a port whose time has passed."""
        return bool(self.limits) and not {claim for claim, _ in self.limits} <= set(self.claims)

    def unexpired(self, now: float) -> Guest:
        """Return the guest without the ports whose time has passed at ``now``."""
        over = {claim for claim, end in self.limits if end <= now}
        ports = tuple(port for port in self.ports if port.claim not in over) if over else self.ports
        return self._replace(ports=ports) if len(ports) < len(self.ports) else self

    @property
    def claims(self) -> list[Claim]:
        """What the guest reserves: one claim per published port."""
        return [port.claim for port in self.ports]

    @property
    def is_remote(self) -> bool:
        """Whether another node runs the guest."""
        return self.key.is_remote

    def is_called(self, name: str) -> bool:
        """Whether a person means this guest: ``name`` is its name or its uuid, as in virsh."""
        return name == self.name or (bool(self.uuid) and name.lower() == self.uuid.lower())

    @property
    def title(self) -> str:
        """How messages name the guest: ``guest "web1"`` or ``remote-guest "web1"``."""
        kind = "remote-guest" if self.key.driver == REMOTE else "guest"
        return f"{kind} {quoted(self.name)}"

    def is_same_device(self, other: Guest) -> bool:
        """Whether both are the same xl device, before and after a migration to this same host."""
        return bool(self.device) and self.device == other.device

    def is_same_guest(self, other: Guest) -> bool:
        """Whether a local and a remote guest are the same guest of the cluster.

        The uuids decide. A remote guest without a uuid is the same guest only if both its name
        and an address agree: anybody can choose a name or an address.
        """
        if self.is_remote == other.is_remote:
            return False
        if self.uuid and other.uuid:
            return self.uuid == other.uuid
        return self.name == other.name and not self._targets.isdisjoint(other._targets)

    @property
    def _targets(self) -> set[Address]:
        return {port.target_address for port in self.ports if port.target_address}

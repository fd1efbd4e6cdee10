"""A guest, its key and its published ports."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address, Claim, PublishedPort

#: The "driver" of a remote guest: another node runs it, this node publishes its ports as well.
REMOTE = "remote"
#: The "driver" of one network device of a plain xl guest.
XL = "xl"


class GuestKey(NamedTuple):
    """The key of a guest's record and claims, written ``DRIVER-ID``.

    ``id`` is the uuid of a libvirt guest, or ``vifDOMID.DEVID`` for a network device of an xl
    guest, or the name of a remote guest.
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
        return self.driver == REMOTE


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

    @property
    def claims(self) -> list[Claim]:
        """What the guest reserves: one claim per published port."""
        return [port.claim for port in self.ports]

    @property
    def is_remote(self) -> bool:
        """Whether another node runs the guest."""
        return self.key.is_remote

    @property
    def title(self) -> str:
        """How messages name the guest: ``guest "web1"`` or ``remote-guest "web1"``."""
        return f"{'remote-guest' if self.is_remote else 'guest'} {quoted(self.name)}"

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

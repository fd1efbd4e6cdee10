"""A guest, its key, and what it publishes."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address, Claim, PublishedPort

#: The "driver" of a guest that another node runs, and that this one publishes as well.
REMOTE = "remote"
#: The "driver" of one network device of a plain xl guest.
XL = "xl"


class GuestKey(NamedTuple):
    """What a guest's record and claims are filed under, written ``DRIVER-ID``.

    ``id`` is the uuid of a libvirt guest, ``vifDOMID.DEVID`` of an xl guest's network device, and
    the name of a remote guest.
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
    """One network interface of a guest, as its definition has it.

    ``network`` is the libvirt network it is on, None on a plain bridge;
    ``bridge`` the bridge, None where the definition does not say.
    """

    mac: str
    network: str | None = None
    bridge: str | None = None
    addresses: tuple[Address, ...] = ()


class Guest(NamedTuple):
    """A guest with its published ports, translated to the addresses known of it."""

    key: GuestKey
    name: str
    ports: tuple[PublishedPort, ...] = ()
    #: Empty for a remote guest whose config entry names none.
    uuid: str = ""
    #: Bridges of libvirt networks that it is on; libvirt's firewall guards those.
    network_bridges: tuple[str, ...] = ()
    #: Stable ID of an xl device (UUID.DEVID): the record key changes on migration, this does not.
    device: str = ""
    #: Interfaces whose DHCP host entry or lease gave the addresses; empty: the definition did.
    leased: tuple[Interface, ...] = ()

    @property
    def claims(self) -> list[Claim]:
        """What the guest reserves: one claim to a published port."""
        return [port.claim for port in self.ports]

    @property
    def is_remote(self) -> bool:
        """Whether another node runs the guest."""
        return self.key.is_remote

    @property
    def title(self) -> str:
        """How a problem names it: ``guest "web1"``, or as the config's entry does."""
        return f"{'remote-guest' if self.is_remote else 'guest'} {quoted(self.name)}"

    def is_same_device(self, other: Guest) -> bool:
        """Whether both are one xl device, before and after a migration to this host itself."""
        return bool(self.device) and self.device == other.device

    def is_same_guest(self, other: Guest) -> bool:
        """Whether a local and a remote guest are one guest of the cluster.

        By uuid. A remote guest that carries no uuid is the same guest only where name and
        address both agree: a name or an address alone is anybody's to choose.
        """
        if self.is_remote == other.is_remote:
            return False
        if self.uuid and other.uuid:
            return self.uuid == other.uuid
        return self.name == other.name and not self._targets.isdisjoint(other._targets)

    @property
    def _targets(self) -> set[Address]:
        return {port.target_address for port in self.ports if port.target_address}

"""A guest and what it publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address, Claim, PublishedPort


#: The "driver" of a guest that another node runs, and that this one publishes as well.
PEER = "peer"


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

    driver: str
    uuid: str
    name: str
    ports: tuple[PublishedPort, ...] = ()
    #: Bridges of libvirt networks that it is on; libvirt's firewall guards those.
    network_bridges: tuple[str, ...] = ()
    #: Where the uuid is another one after a migration (xl): what stays. A guest takes its ports
    #: over from its own other self, which on a migration to this host itself is still there.
    lasting_id: str = ""

    def succeeds(self, other: Guest) -> bool:
        """Whether this is the same guest, migrated from this host to itself."""
        return bool(self.lasting_id) and self.lasting_id == other.lasting_id

    @property
    def key(self) -> str:
        """What its record and its claims are filed under."""
        return f"{self.driver}-{self.uuid}"

    @property
    def claims(self) -> list[Claim]:
        """What its ports keep others from."""
        return [claim for port in self.ports for claim in port.claims()]

    @property
    def is_peer(self) -> bool:
        """Whether it is one that lives on another node."""
        return self.driver == PEER

    def is_same_as(self, other: Guest) -> bool:
        """Whether both are one guest of the cluster.

        By name, or by address: ``virsh migrate --dname`` gives it another name.
        """
        return self.name == other.name or not self._addresses.isdisjoint(other._addresses)

    @property
    def _addresses(self) -> set[Address]:
        return {port.target_address for port in self.ports if port.target_address}

"""Published ports: listening ports of the node, each translated to a guest's port.

Hook calls load this module, so it must import little.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The protocols that have ports and that nftables' dnat translates.
PROTOCOLS = ("tcp", "udp", "sctp")
#: Protocols whose conntrack entries stay as long as there is traffic: a client that goes on
#: sending keeps its first NAT decision until the entry is deleted.
DATAGRAM_PROTOCOLS = ("udp", "sctp")
MIN_PORT, MAX_PORT = 1, 65535

#: The unspecified address (RFC 4291 section 2.5.2) stands for all local addresses, as in
#: bind(2).
ANY_ADDRESS: dict[int, Address] = {4: IPv4Address(0), 6: IPv6Address(0)}


class Claim(NamedTuple):
    """A range of listening ports of one protocol and one listening address, as in bind(2)."""

    protocol: str
    address: Address
    start: int
    end: int

    def __str__(self) -> str:
        """Return the claim as people read it, for example ``*:2202/tcp``."""
        return f"{host(self.address)}:{span(self.start, self.end)}/{self.protocol}"

    def common_with(self, other: Claim) -> Claim:
        """Return the ports that this claim and an overlapping one have in common."""
        return self._replace(start=max(self.start, other.start), end=min(self.end, other.end))

    def overlaps(self, other: Claim) -> bool:
        """Whether one packet could match both claims."""
        return (
            self.protocol == other.protocol
            and self.start <= other.end
            and other.start <= self.end
            and are_overlapping(self.address, other.address)
        )


class ClientLimits(NamedTuple):
    """What one client may do at one listening port. 0 means no limit.

    ``rate`` new connections per ``unit`` ("second", "minute", "hour"), and ``connections`` at once.
    """

    rate: int = 0
    unit: str = ""
    connections: int = 0

    @property
    def limit(self) -> str:
        """The rate as an annotation has it: ``10/second``; empty if there is none."""
        return f"{self.rate}/{self.unit}" if self.rate else ""

    @property
    def texts(self) -> list[str]:
        """The limits as ``fields.parse_limits`` reads them."""
        return [self.limit, str(self.connections) if self.connections else ""]

    def __str__(self) -> str:
        """Return the limits as people read them: ``10/second, 20 at once``."""
        at_once = f"{self.connections} at once" if self.connections else ""
        return ", ".join(filter(None, (self.limit, at_once)))


class PublishedPort(NamedTuple):
    """A range of listening ports of one protocol and one IP family.

    Listening port ``start + n`` is translated to guest port ``to + n``, as in libvirt's ``<range
    start end to>``. ``listen_address`` is the unspecified address for any local address.
    ``target_address`` is None while the guest's address is not known. ``sources`` empty admits
    all clients.
    """

    protocol: str
    listen_address: Address
    start: int
    end: int
    to: int
    target_address: Address | None
    sources: tuple[Network, ...] = ()
    #: The limits for one client; None if there are none.
    limits: ClientLimits | None = None

    @property
    def translation(self) -> PublishedPort:
        """The port without its limits: what happens to the packets of an open connection."""
        return self._replace(limits=None) if self.limits else self

    @property
    def family(self) -> int:
        """The IP version: 4 or 6."""
        return self.listen_address.version

    @property
    def claim(self) -> Claim:
        """The listening ports that this published port reserves on the node."""
        return Claim(self.protocol, self.listen_address, self.start, self.end)

    @property
    def keeps_numbers(self) -> bool:
        """Whether each listening port is translated to the same port of the guest."""
        return self.start == self.to

    @property
    def listen(self) -> str:
        """The listening side as people read it: ``*:8000-8009/tcp``."""
        return str(self.claim)

    @property
    def target(self) -> str:
        """The guest's side as people read it: ``10.5.5.202:80-89``."""
        address = host(self.target_address) if self.target_address else "?"
        return f"{address}:{span(self.to, self.to + self.end - self.start)}"

    def __str__(self) -> str:
        """Return both sides on one line: ``*:2202/tcp -> 10.5.5.202:22``."""
        sources = " from " + ", ".join(map(str, self.sources)) if self.sources else ""
        limits = f" limited to {self.limits}" if self.limits else ""
        return f"{self.listen} -> {self.target}{sources}{limits}"


def no_longer_translated(
    before: Iterable[PublishedPort], after: Iterable[PublishedPort]
) -> list[PublishedPort]:
    """Return the ports of ``before`` that ``after`` does not translate, whatever their limits."""
    stays = {port.translation for port in after}
    return [port for port in dict.fromkeys(before) if port.translation not in stays]


def are_overlapping(one: Address, other: Address) -> bool:
    """Whether one packet's destination could match both listening addresses."""
    return one.version == other.version and (
        one == other or one.is_unspecified or other.is_unspecified
    )


def host(address: Address) -> str:
    """Format an address to stand before a colon and a port: ``*``, ``10.5.5.1``, ``[fd00::1]``."""
    if address.is_unspecified:
        return "*" if address.version == 4 else "[::]"  # noqa: PLR2004
    return str(address) if address.version == 4 else f"[{address}]"  # noqa: PLR2004


def span(first: int, last: int) -> str:
    """Format a range of ports: ``80`` or ``8000-8009``."""
    return str(first) if first == last else f"{first}-{last}"

"""The addresses that guests on plain bridges have, by the kernel's neighbour table.

Any guest can claim any address by ARP, so an address from here must be held against the same rules
as one that an annotation names. What counts is only an entry on the guest's own bridge, with the
MAC address of the guest's own interface.
Source: include/uapi/linux/neighbour.h, neigh_fill_info in net/core/neighbour.c.
"""

from __future__ import annotations

import _socket
import struct
from ipaddress import ip_address

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.host import netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address

_NEW_NEIGHBOUR, _GET_NEIGHBOUR = 28, 30  # RTM_NEWNEIGH, RTM_GETNEIGH
_MESSAGE = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, index, state, flags, type
_ADDRESS, _MAC, _CACHE_INFO = 1, 2, 3  # NDA_DST, NDA_LLADDR, NDA_CACHEINFO
#: struct nda_cacheinfo: confirmed, used, updated (hundredths of a second ago), references
_AGES = struct.Struct("=IIII")
_UNKNOWN_AGE = 1 << 32
_USE = 0x01  # NTF_USE: as if the node had sent a packet to the neighbour
_PROXY = 0x08  # NTF_PROXY: an entry of the administrator, not of a neighbour
#: NUD_REACHABLE, STALE, DELAY, PROBE, PERMANENT. INCOMPLETE and FAILED have no answer, and the
#: kernel does not ask for NOARP.
_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x80
_PERMANENT = 0x80  # of a bridge: its own address, or that of a port
_AF_BRIDGE = 7
_DEFAULT_SIZE = 1024  # gc_thresh3 of arp_tbl and nd_tbl
_MAC_LENGTH = 6


class Neighbour(NamedTuple):
    """One usable entry of the table."""

    #: The device's name; for a guest its bridge.
    device: str
    mac: str
    address: Address
    #: How long ago the neighbour was last confirmed, in hundredths of a second.
    age: int


def neighbours() -> list[Neighbour]:
    """Return the usable entries, without link-local and multicast addresses.

    Raises ``OSError`` if the kernel does not answer.
    """
    names: dict[int, str] = {}

    def read(payload: memoryview) -> Neighbour | None:
        return _read(payload, names)

    found: list[Neighbour] = []
    with netlink.Channel(netlink.ROUTE) as channel:
        for family in (_socket.AF_INET, _socket.AF_INET6):
            found += channel.dump(_GET_NEIGHBOUR, _MESSAGE.pack(family, 0, 0, 0, 0), read)
    return found


def bridge_ports() -> dict[str, str]:
    """Return MAC address -> bridge port behind which it was seen last, of all bridges.

    Raises ``OSError`` if the kernel does not answer.
    """

    def read(payload: memoryview) -> tuple[str, str] | None:
        _, index, state, _, _ = _MESSAGE.unpack_from(payload)
        mac = bytes(netlink.attributes(payload[_MESSAGE.size :]).get(_MAC, b""))
        is_own = state & _PERMANENT
        return None if is_own or len(mac) != _MAC_LENGTH else (mac.hex(":"), _name_of(index))

    with netlink.Channel(netlink.ROUTE) as channel:
        request = _MESSAGE.pack(_AF_BRIDGE, 0, 0, 0, 0)
        return dict(channel.dump(_GET_NEIGHBOUR, request, read))


def room(version: int) -> int:
    """Return for how many more neighbours of an IP version the kernel's table has room.

    A quarter is left to others. All network namespaces share the table, and only the first one
    shows its size (neigh_sysctl_register in net/core/neighbour.c).
    """
    name, family = ("arp_cache", "ipv4") if version == 4 else ("ndisc_cache", "ipv6")  # noqa: PLR2004
    try:
        with open(f"/proc/thread-self/net/stat/{name}", encoding="ascii") as file:
            entries = int(file.readlines()[1].split()[0], 16)
    except (OSError, IndexError, ValueError):
        entries = 0
    try:
        with open(f"/proc/sys/net/{family}/neigh/default/gc_thresh3", encoding="ascii") as file:
            most = int(file.read())
    except (OSError, ValueError):
        most = _DEFAULT_SIZE
    return max(most * 3 // 4 - entries, 0)


def ask(address: Address, device: str) -> None:
    """Let the kernel find out who has an address now; the answer comes as a neighbour event.

    It sends ARP requests or neighbour solicitations, and first waits 5 s for other signs of life
    of a neighbour that is known. Raises ``OSError``.
    """
    family = _socket.AF_INET if address.version == 4 else _socket.AF_INET6  # noqa: PLR2004
    body = _MESSAGE.pack(family, _socket.if_nametoindex(device), 0, _USE, 0)
    body += netlink.attribute(_ADDRESS, address.packed)
    with netlink.Channel(netlink.ROUTE) as channel:
        channel.ask(_NEW_NEIGHBOUR, body, netlink.CREATE)


def _read(payload: memoryview, names: dict[int, str]) -> Neighbour | None:
    _, index, state, flags, _ = _MESSAGE.unpack_from(payload)
    found = netlink.attributes(payload[_MESSAGE.size :])
    mac, packed = bytes(found.get(_MAC, b"")), found.get(_ADDRESS)
    if not state & _USABLE or flags & _PROXY or len(mac) != _MAC_LENGTH or packed is None:
        return None
    address = ip_address(bytes(packed))
    if address.is_multicast or address.is_link_local or address.is_unspecified:
        return None
    device = names.get(index) or names.setdefault(index, _name_of(index))
    return Neighbour(device, mac.hex(":"), address, _age(found))


def _age(found: dict[int, bytes | memoryview]) -> int:
    ages = found.get(_CACHE_INFO, b"")
    return int(_AGES.unpack_from(ages)[0]) if len(ages) >= _AGES.size else _UNKNOWN_AGE


def _name_of(index: int) -> str:
    """Return the device's name; empty if it was deleted at this moment."""
    try:
        return _socket.if_indextoname(index)
    except OSError:
        return ""

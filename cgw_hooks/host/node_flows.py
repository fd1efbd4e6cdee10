"""Deletes or marks the tracked flows of a node, over ctnetlink.

Only ``cgw node`` uses this: it reads the whole table, which takes about 0.3 s for 100,000 flows.
Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address

from cgw_hooks.core.node_flows import Ends
from cgw_hooks.errors import ReplicationError
from cgw_hooks.host import netlink
from cgw_hooks.host.netlink import attribute, attributes, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgw_hooks.core.published_port import Address

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_NEW, _GET, _DELETE = _SUBSYSTEM | 0, _SUBSYSTEM | 1, _SUBSYSTEM | 2
_TUPLE_ORIG, _TUPLE_REPLY, _MARK, _ID, _ZONE, _MARK_MASK = 1, 2, 8, 12, 18, 21
_TUPLE_IP = 1
#: CTA_IP_V4_SRC and CTA_IP_V4_DST, and those of IPv6.
_SOURCE_AND_DESTINATION = {
    int(socket.AF_INET): (1, 2),
    int(socket.AF_INET6): (3, 4),
}
_HEADER_SIZE = 4  # struct nfgenmsg


def delete_flows(addresses: Iterable[Address], condition: Callable[[Ends], bool]) -> int:
    """Delete the flows with one of these addresses that meet the condition; return their number.

    Raises ``ReplicationError``.
    """
    # Most flows have none of the addresses. To look for their bytes is quick, to read a flow not.
    needles = [address.packed for address in addresses]

    def read(payload: memoryview) -> bytes | None:
        packed = bytes(payload)
        if not any(needle in packed for needle in needles):
            return None
        found = attributes(packed[_HEADER_SIZE:])
        return _identity(packed, found) if condition(_ends(packed[0], found)) else None

    return _command(_DELETE, b"", read)


def delete_marked_flows(mark: int, mask: int) -> int:
    """Delete the flows whose mark has this value under a mask; return their number.

    Raises ``ReplicationError``.
    """
    return _command(_DELETE, _mark(mark, mask), _with_mark(mark, mask))


def change_mark(mark: int, new: int, mask: int) -> int:
    """Give the flows with this mark another one, under a mask; return their number.

    Raises ``ReplicationError``.
    """
    # The kernel changes the bits of the mask alone (ctnetlink_change_mark).
    return _command(_NEW, _mark(mark, mask), _with_mark(mark, mask, _mark(new, mask)))


def _mark(mark: int, mask: int) -> bytes:
    return attribute(_MARK, struct.pack("!I", mark)) + attribute(
        _MARK_MASK, struct.pack("!I", mask)
    )


def _with_mark(mark: int, mask: int, change: bytes = b"") -> Callable[[memoryview], bytes | None]:
    def read(payload: memoryview) -> bytes | None:
        packed = bytes(payload)
        found = attributes(packed[_HEADER_SIZE:])
        # A kernel without marks ignores the question.
        its_mark = int.from_bytes(found.get(_MARK, b""), "big")
        return _identity(packed, found) + change if its_mark & mask == mark else None

    return read


def _command(kind: int, question: bytes, read: Callable[[memoryview], bytes | None]) -> int:
    try:
        with netlink.Channel(netlink.NETFILTER) as channel:
            found = []
            for family in _SOURCE_AND_DESTINATION:
                found += channel.dump(_GET, bytes([family, 0, 0, 0]) + question, read)
            results = channel.command(kind, found)
    except OSError as error:
        raise ReplicationError(
            "connection tracking", f"its flows cannot be listed: {error.strerror}"
        ) from error
    for number in results:
        if number not in {0, errno.ENOENT}:  # ENOENT: the flow has ended by itself
            raise ReplicationError(
                "connection tracking",
                f"a flow cannot be changed: {errno.errorcode.get(number, number)}",
            )
    return results.count(0)


def _ends(family: int, found: dict[int, bytes | memoryview]) -> Ends:
    source, destination = _SOURCE_AND_DESTINATION[family]
    addresses = []
    for direction in (_TUPLE_ORIG, _TUPLE_REPLY):
        ip = attributes(attributes(found[direction])[_TUPLE_IP])
        addresses += [ip_address(bytes(ip[end])) for end in (source, destination)]
    return Ends(*addresses)


def _identity(packed: bytes, found: dict[int, bytes | memoryview]) -> bytes:
    """Return what names this flow and no other, in the body of a command."""
    identity = packed[:_HEADER_SIZE] + nested(_TUPLE_ORIG, bytes(found[_TUPLE_ORIG]))
    for kind in (_ZONE, _ID):
        if kind in found:
            identity += attribute(kind, bytes(found[kind]))
    return identity

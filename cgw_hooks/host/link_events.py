"""Changes of links, addresses and neighbours of this network namespace, as the kernel tells them.

The kernel repeats much that has not changed: each router advertisement renews the IPv6 addresses,
and a neighbour entry changes its state every few seconds. So the last known values are kept, and
only another value is news.
Source: include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour}.h.
"""

from __future__ import annotations

import _socket
import struct

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.host import netlink, netlink_events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

#: RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR
_GROUPS = (1, 3, 5, 9)
_NEW_LINK, _DELETE_LINK = 16, 17
_NEW_ADDRESS, _DELETE_ADDRESS = 20, 21
_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR = 28, 29
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, index, state, flags, type
_LINK_NAME, _LINK_MASTER = 3, 10  # IFLA_IFNAME, IFLA_MASTER
_LINK_STATE = 0x1 | 0x40 | 0x10000  # IFF_UP, IFF_RUNNING, IFF_LOWER_UP
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_UNUSABLE = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED: no program can use it yet
_NDA_ADDRESS, _NDA_MAC = 1, 2  # NDA_DST, NDA_LLADDR
_PROXY = 0x08  # NTF_PROXY: an entry of the administrator, not of a neighbour
#: NUD_REACHABLE, STALE, DELAY, PROBE, PERMANENT: the entry's MAC address is in use.
_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x80
_FAILED = 0x20  # NUD_FAILED
_FAMILIES = (_socket.AF_INET, _socket.AF_INET6)
#: Values kept. A flood of forged neighbours costs looks, not memory.
_MOST = 16384
_BUFFER_SIZE = 4 << 20


class Changes(NamedTuple):
    """What has changed since the last look."""

    #: A link was made, deleted or renamed, went up or down, or joined or left a bridge.
    links: bool = False
    #: The node has got or lost an address.
    addresses: bool = False
    #: A neighbour has an address that it did not have before, as far as the table knew, or does
    #: not answer at it any more.
    neighbours: bool = False
    #: Whether changes were missed: anything may have changed.
    lost: bool = False

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return any(self)


class LinkEvents:
    """Hears of the changes. Only one thread may use it. Raises ``OSError``.

    It does not know what was there before, so the first news about each thing is a change.
    """

    def __init__(self, buffer_size: int = _BUFFER_SIZE) -> None:
        self._subscription = netlink_events.Subscription(netlink.ROUTE, _GROUPS, buffer_size)
        self._links = _Known()
        self._addresses = _Known()
        self._neighbours = _Known()

    def fileno(self) -> int:
        """Return the descriptor, which is readable if there is news."""
        return self._subscription.fileno()

    def close(self) -> None:
        """Hear nothing more."""
        self._subscription.close()

    def read(self) -> Changes:
        """Return what has changed; do not wait for more."""
        links = addresses = neighbours = lost = False
        for kind, payload in self._subscription.read():
            if kind == netlink_events.LOST:
                lost = True
            elif kind in {_NEW_LINK, _DELETE_LINK}:
                links |= self._link(kind, payload)
            elif kind in {_NEW_ADDRESS, _DELETE_ADDRESS}:
                addresses |= self._address(kind, payload)
            elif kind in {_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR}:
                neighbours |= self._neighbour(kind, payload)
        if lost:
            for known in (self._links, self._addresses, self._neighbours):
                known.forget()
        return Changes(links, addresses, neighbours, lost)

    def _link(self, kind: int, payload: memoryview) -> bool:
        family, _, index, flags, _ = _LINK.unpack_from(payload)
        if family:  # IPv6 settings, or the port of a bridge: a change of it also comes without
            return False
        if kind == _DELETE_LINK:
            self._links.remove(index)
            return True
        found = netlink.attributes(payload[_LINK.size :])
        name, master = (bytes(found.get(key, b"")) for key in (_LINK_NAME, _LINK_MASTER))
        return self._links.put(index, (name, master, flags & _LINK_STATE))

    def _address(self, kind: int, payload: memoryview) -> bool:
        family, length, flags, _, index = _ADDRESS.unpack_from(payload)
        found = netlink.attributes(payload[_ADDRESS.size :])
        address = bytes(found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b""))
        if len(found.get(_IFA_FLAGS, b"")) == 4:  # noqa: PLR2004 - 32 bits; the header has 8
            (flags,) = struct.unpack("=I", found[_IFA_FLAGS])
        key = (family, index, address, length)
        if kind == _DELETE_ADDRESS:
            self._addresses.remove(key)
            return True
        return self._addresses.put(key, flags & _UNUSABLE)

    def _neighbour(self, kind: int, payload: memoryview) -> bool:
        """Note a neighbour; return whether it is news.

        An entry that the kernel forgets is no news, but one without an answer is.
        """
        family, index, state, flags, _ = _NEIGHBOUR.unpack_from(payload)
        if family not in _FAMILIES or flags & _PROXY:
            return False
        found = netlink.attributes(payload[_NEIGHBOUR.size :])
        key, mac = (index, bytes(found.get(_NDA_ADDRESS, b""))), bytes(found.get(_NDA_MAC, b""))
        if kind == _DELETE_NEIGHBOUR or not state & _USABLE or not mac:
            return self._neighbours.remove(key) and bool(state & _FAILED)
        return self._neighbours.put(key, mac)


class _Known:
    """The last known values, at most ``_MOST``: then all are forgotten and come again as news."""

    def __init__(self) -> None:
        self._values: dict[Hashable, Hashable] = {}

    def put(self, key: Hashable, value: Hashable) -> bool:
        """Keep a value; return whether it is another one than before."""
        if self._values.get(key) == value:
            return False
        if len(self._values) >= _MOST:
            self._values.clear()
        self._values[key] = value
        return True

    def remove(self, key: Hashable) -> bool:
        """Forget a value that is gone; return whether it was known."""
        return self._values.pop(key, None) is not None

    def forget(self) -> None:
        """Forget everything."""
        self._values.clear()

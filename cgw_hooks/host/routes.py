"""The route of a packet from this node to an address, as the kernel's routing tables say.

The kernel is asked for the route of the node's own packets: policy rules for an incoming device
or for a mark do not count. Hook calls load this module, so it must not import pyroute2.
Source: RFC 3549 section 3.1, include/uapi/linux/rtnetlink.h, net/ipv4/route.c, net/ipv6/route.c.
"""

from __future__ import annotations

import _socket
import errno
import struct
from ipaddress import ip_address

from cgw_hooks.core.policy import Route
from cgw_hooks.host import netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address

_GET_ROUTE = 26  # RTM_GETROUTE
_MESSAGE = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, prefix length ... type, flags
_TYPE_FIELD = 7
_DESTINATION, _DEVICE, _GATEWAY, _VIA = 1, 4, 5, 18  # RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_VIA
_FAMILY = {4: _socket.AF_INET, 6: _socket.AF_INET6}
_VIA_FAMILY_SIZE = 2  # struct rtvia: the family, then the address

_KINDS = {
    1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole",
    7: "unreachable", 8: "prohibit", 9: "throw",
}  # fmt: skip
#: The kernel does not return these routes. It answers with the error that a sender would get.
_KIND_OF_ERROR = {
    errno.EHOSTUNREACH: "unreachable",
    errno.EINVAL: "blackhole",
    errno.EACCES: "prohibit",
}


def route_to(address: Address) -> Route | None:
    """Return the route to an address, one of them if there are several; None if there is none.

    A route through a device without a carrier counts (for example the bridge of a libvirt network
    before its first guest), unless the administrator has set ``ignore_routes_with_linkdown``.

    Raises ``OSError`` if the kernel does not answer.
    """
    request = _MESSAGE.pack(_FAMILY[address.version], address.max_prefixlen, *[0] * 7)
    request += netlink.attribute(_DESTINATION, address.packed)
    with netlink.Channel(netlink.ROUTE) as channel:
        try:
            answers = channel.ask(_GET_ROUTE, request)
        except OSError as error:
            if error.errno == errno.ENETUNREACH:
                return None
            if error.errno in _KIND_OF_ERROR:
                return Route(_KIND_OF_ERROR[error.errno])
            raise
    return _read(answers[0]) if answers else None


def router_devices(version: int) -> set[str]:
    """Return the devices through which a route of any table leads to a router.

    Raises ``OSError`` if the kernel does not answer.
    """

    def read(payload: memoryview) -> str | None:
        found = _read(bytes(payload))
        return found.device if found.gateway and found.device else None

    with netlink.Channel(netlink.ROUTE) as channel:
        return set(channel.dump(_GET_ROUTE, _MESSAGE.pack(_FAMILY[version], *[0] * 8), read))


def _read(payload: bytes) -> Route:
    number = payload[_TYPE_FIELD]
    found = netlink.attributes(payload[_MESSAGE.size :])
    return Route(_KINDS.get(number, str(number)), _device(found), _gateway(found))


def _device(found: dict[int, bytes | memoryview]) -> str:
    """Return the device's name; empty if it was deleted at this moment."""
    if _DEVICE not in found:
        return ""
    index = int(struct.unpack("=I", found[_DEVICE])[0])
    try:
        return _socket.if_indextoname(index)
    except OSError:
        return ""


def _gateway(found: dict[int, bytes | memoryview]) -> Address | None:
    """Return the next router. An IPv4 route may have one with an IPv6 address (RFC 5549)."""
    if _GATEWAY in found:
        return ip_address(bytes(found[_GATEWAY]))
    if _VIA in found:
        return ip_address(bytes(found[_VIA][_VIA_FAMILY_SIZE:]))
    return None

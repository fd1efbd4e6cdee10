"""The node's own addresses and their devices, as the kernel reports them. Without pyroute2.

Source: include/uapi/linux/if_addr.h, inet_fill_ifaddr in net/ipv4/devinet.c.
"""

from __future__ import annotations

import _socket
import struct
from ipaddress import ip_address, ip_network

from cgw_hooks.host import netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address, Network

_GET_ADDRESS = 22  # RTM_GETADDR
_MESSAGE = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ADDRESS, _LOCAL = 1, 2  # IFA_ADDRESS; IFA_LOCAL: own address, point-to-point
_DOCUMENTATION = {4: "192.0.2.1", 6: "2001:db8::1"}
_FAMILY = {4: _socket.AF_INET, 6: _socket.AF_INET6}


def devices(version: int) -> dict[Address, str]:
    """Return address -> device for the node's addresses of an IP version (4 or 6).

    Loopback addresses are left out.

    Raises ``OSError`` if the kernel does not answer.
    """
    request = _MESSAGE.pack(_FAMILY[version], 0, 0, 0, 0)
    with netlink.Channel(netlink.ROUTE) as channel:
        found = channel.dump(_GET_ADDRESS, request, _read)
    return {address: device for address, device in found if not address.is_loopback}


def networks(version: int) -> list[tuple[Network, str]]:
    """Return the networks of the node's addresses of an IP version, with their devices.

    Raises ``OSError`` if the kernel does not answer.
    """

    def read(payload: memoryview) -> tuple[Network, str] | None:
        found = _read(payload)
        length = _MESSAGE.unpack_from(payload)[1]
        return found and (ip_network(f"{found[0]}/{length}", strict=False), found[1])

    with netlink.Channel(netlink.ROUTE) as channel:
        return channel.dump(_GET_ADDRESS, _MESSAGE.pack(_FAMILY[version], 0, 0, 0, 0), read)


def outward(version: int) -> Address | None:
    """Return the node's address on the way to its default gateway, or None. Sends nothing.

    To connect a UDP socket only looks up a route; the address is one for documentation (RFC 5737,
    RFC 3849), which is on no link.
    """
    probe = _socket.socket(_FAMILY[version], _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        probe.connect((_DOCUMENTATION[version], 9))
        return ip_address(probe.getsockname()[0])
    except OSError:
        return None
    finally:
        probe.close()


def _read(payload: memoryview) -> tuple[Address, str] | None:
    index = _MESSAGE.unpack_from(payload)[4]
    found = netlink.attributes(payload[_MESSAGE.size :])
    packed = found.get(_LOCAL) or found.get(_ADDRESS)
    try:
        return (ip_address(bytes(packed)), _socket.if_indextoname(index)) if packed else None
    except OSError:  # the device was deleted at this moment
        return None

"""Asks a link who has an address, and tells it that this node has the address now.

For IPv4 these are an ARP probe (RFC 5227 section 2.1.1) and a gratuitous ARP (RFC 5227 section
2.3), for IPv6 a neighbour solicitation and an unsolicited neighbour advertisement (RFC 4861
sections 4.3 and 7.2.6).

Any host of a link can answer and announce any address: who answers is not proved by this.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from ipaddress import ip_address

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import LinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cgw_hooks.core.published_port import Address

#: When the questions and announcements are sent, in seconds; the last answer is waited for until
#: ``_PATIENCE``.
_TIMES = (0.0, 0.25, 0.5)
_PATIENCE = 1.0

_ARP = 0x0806
_ETHERNET = struct.Struct("!6s6sH")
_ARP_PACKET = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
_BROADCAST, _NO_MAC, _NO_ADDRESS = b"\xff" * 6, bytes(6), bytes(4)

_SOLICITATION, _ADVERTISEMENT = 135, 136
_NEIGHBOUR = struct.Struct("!BBHI16sBB6s")  # RFC 4861 sections 4.3 and 4.4, with one option
_SOURCE_OPTION, _TARGET_OPTION = 1, 2
_ROUTER_AND_OVERRIDE = 0xA0000000
_HOP_LIMIT = 255  # RFC 4861 section 7.1: all else is dropped, so no router has passed it on
_ICMPV6_FILTER = 1  # ICMP6_FILTER, include/uapi/linux/icmpv6.h
_ALL_NODES = "ff02::1"
_SOLICITED_NODE = b"\xff\x02" + bytes(9) + b"\x01\xff"  # RFC 4291 section 2.7.1
_LONGEST_FRAME = 2048


class Place(NamedTuple):
    """An address, and the device on whose link it is."""

    device: str
    address: Address


def find_answering(places: Sequence[Place]) -> list[Place]:
    """Return the places whose address another host answers for. This takes a second at most.

    Raises ``LinkError`` if a device cannot send.
    """
    links = [_link(place) for place in places]
    try:
        begin, answering = time.monotonic(), set[Place]()
        for moment, following in zip(_TIMES, (*_TIMES[1:], _PATIENCE), strict=True):
            _wait(begin + moment, links, answering)
            for link in links:
                link.ask()
            _wait(begin + following, links, answering)
    finally:
        for link in links:
            link.close()
    return [place for place in places if place in answering]


def announce(places: Iterable[Place]) -> None:
    """Tell each link that this node has the address. This takes half a second.

    The device must have the address already. Raises ``LinkError`` if a device cannot send.
    """
    links = [_link(place) for place in places]
    try:
        begin = time.monotonic()
        for moment in _TIMES:
            time.sleep(max(0.0, begin + moment - time.monotonic()))
            for link in links:
                link.announce()
    finally:
        for link in links:
            link.close()


class _Ipv4Link:
    """A packet socket for ARP on one device."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP))
        self.socket.bind((place.device, _ARP))
        self._mac: bytes = self.socket.getsockname()[4]

    def ask(self) -> None:
        self._send(_REQUEST, _NO_ADDRESS, _NO_MAC)

    def announce(self) -> None:
        # Some hosts follow only one of the two.
        self._send(_REQUEST, self.place.address.packed, _NO_MAC)
        self._send(_REPLY, self.place.address.packed, _BROADCAST)

    def is_answer(self, frame: bytes) -> bool:
        if len(frame) < _ETHERNET.size + _ARP_PACKET.size:
            return False
        _, _, _, _, _, mac, address, _, _ = _ARP_PACKET.unpack_from(frame, _ETHERNET.size)
        return bool(address == self.place.address.packed and mac != self._mac)

    def close(self) -> None:
        self.socket.close()

    def _send(self, operation: int, source: bytes, target_mac: bytes) -> None:
        packet = _ARP_PACKET.pack(
            1, 0x0800, 6, 4, operation, self._mac, source, target_mac, self.place.address.packed
        )
        with _naming(self.place):
            self.socket.send(_ETHERNET.pack(_BROADCAST, self._mac, _ARP) + packet)


class _Ipv6Link:
    """A raw socket for neighbour discovery on one device."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._index = socket.if_nametoindex(place.device)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as device:
            device.bind((place.device, 0))
            self._mac: bytes = device.getsockname()[4]
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        for option, value in (
            (socket.IPV6_MULTICAST_IF, self._index),
            (socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT),
            (socket.IPV6_UNICAST_HOPS, _HOP_LIMIT),
            (socket.IPV6_MULTICAST_LOOP, 0),
        ):
            self.socket.setsockopt(socket.IPPROTO_IPV6, option, value)
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_BINDTODEVICE, place.device.encode() + b"\0"
        )
        blocked = (1 << 256) - 1 & ~(1 << _ADVERTISEMENT)
        mask = struct.pack("=8I", *(blocked >> 32 * word & 0xFFFFFFFF for word in range(8)))
        self.socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, mask)

    def ask(self) -> None:
        group = _SOLICITED_NODE + self.place.address.packed[-3:]
        self._send(_SOLICITATION, 0, _SOURCE_OPTION, str(ip_address(group)))

    def announce(self) -> None:
        self._send(_ADVERTISEMENT, _ROUTER_AND_OVERRIDE, _TARGET_OPTION, _ALL_NODES)

    def is_answer(self, message: bytes) -> bool:
        own = self._mac in message[24:]  # the kernel may hand over what this node itself has sent
        return message[8:24] == self.place.address.packed and not own

    def close(self) -> None:
        self.socket.close()

    def _send(self, kind: int, flags: int, option: int, destination: str) -> None:
        # The kernel computes the checksum (RFC 3542 section 3.1).
        message = _NEIGHBOUR.pack(
            kind, 0, 0, flags, self.place.address.packed, option, 1, self._mac
        )
        with _naming(self.place):
            self.socket.sendto(message, (destination, 0, 0, self._index))


def _link(place: Place) -> _Ipv4Link | _Ipv6Link:
    with _naming(place):
        return _Ipv4Link(place) if place.address.version == 4 else _Ipv6Link(place)  # noqa: PLR2004


class _naming:  # noqa: N801  (it reads as a verb)
    """Name the device and the address in an error of the kernel: raise ``LinkError``."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise LinkError(
                self._place.device,
                f"nothing can be sent about {self._place.address}: {error.strerror}",
                "see: ip link show " + self._place.device,
            ) from error


def _wait(until: float, links: Iterable[_Ipv4Link | _Ipv6Link], answering: set[Place]) -> None:
    """Read answers until a moment of the monotonic clock."""
    by_socket = {link.socket: link for link in links if link.place not in answering}
    while by_socket and (left := until - time.monotonic()) > 0:
        for ready in select.select(list(by_socket), [], [], left)[0]:
            if by_socket[ready].is_answer(ready.recv(_LONGEST_FRAME)):
                answering.add(by_socket[ready].place)
                del by_socket[ready]

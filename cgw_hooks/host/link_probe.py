"""Asks links who has some addresses: all of them at once, and each with all its answers.

The questions are ARP probes (RFC 5227 section 2.1.1) and neighbour solicitations (RFC 4861 section
4.3). An ARP probe has no sender's address, so nobody's neighbour table changes.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cache
from ipaddress import ip_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.published_port import Address

    #: Device and address.
    Place = tuple[str, Address]

#: Seconds after the first question at which who has not answered is asked again.
_AGAIN = (0.25, 0.5)
_PATIENCE = 0.75
#: Seconds after the last first answer, in which a second host may answer for an address.
_SECOND_ANSWER = 0.3

_ARP = 0x0806
_ETHER = 1  # ARPHRD_ETHER
_ETHERNET = struct.Struct("!6s6sH")
_ARP_PACKET = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST = 1
_BROADCAST, _NO_MAC, _NO_ADDRESS = b"\xff" * 6, bytes(6), bytes(4)
_SOLICITATION, _ADVERTISEMENT = 135, 136
_NEIGHBOUR = struct.Struct("!BBHI16sBB6s")  # RFC 4861 sections 4.3 and 4.4, with one option
_SOURCE_OPTION, _TARGET_OPTION = 1, 2
_HOP_LIMIT = 255  # RFC 4861 section 7.1
_ICMPV6_FILTER = 1  # ICMP6_FILTER, include/uapi/linux/icmpv6.h
_SOLICITED_NODE = b"\xff\x02" + bytes(9) + b"\x01\xff"  # RFC 4291 section 2.7.1
_LONGEST_FRAME = 2048
#: A host that sends answers without end must not keep this module busy, or fill the memory.
_AT_ONCE, _MOST_ANSWERS = 4096, 16
_BUFFER = 1 << 21


def who_has(places: Iterable[Place], own: Iterable[Place] = ()) -> dict[Place, set[str]]:
    """Return the MAC addresses that answer for each address. This takes 0.75 s at most.

    ``own``: more addresses, which are this node's, so that no answer is waited for.

    An address whose device is not an Ethernet device, or cannot send, is left out.
    """
    found: dict[Place, set[str]] = {}
    guests = set(places)
    wanted = sorted(guests.union(own), key=str)
    links: dict[tuple[str, int], _Link] = {
        key: link
        for key in {(device, address.version) for device, address in wanted}
        if (link := _open(*key))
    }
    try:
        for device, address in wanted:
            if (device, address.version) in links:
                found[device, address] = set()
        if found:
            _ask(found, {place: found[place] for place in guests & found.keys()}, links)
    finally:
        for link in links.values():
            link.socket.close()
    return found


def _ask(
    found: dict[Place, set[str]],
    expected: dict[Place, set[str]],
    links: dict[tuple[str, int], _Link],
) -> None:
    begin = last = time.monotonic()
    for moment in (*_AGAIN, _PATIENCE):
        for device, address in [place for place, macs in found.items() if not macs]:
            with suppress(OSError):  # then nobody answers
                links[device, address.version].ask(address)
        while (now := time.monotonic()) < begin + moment:
            until = begin + moment
            if all(expected.values()):
                until = min(until, last + _SECOND_ANSWER)
                if now > until:
                    return
            for device, address, mac in _answers(links, max(until - now, 0.001)):
                macs = found.get((device, address))
                if macs is not None and mac not in macs and len(macs) < _MOST_ANSWERS:
                    macs.add(mac)
                    last = time.monotonic()


def _answers(
    links: dict[tuple[str, int], _Link], seconds: float
) -> Iterator[tuple[str, Address, str]]:
    """Wait for answers; yield device, address and MAC address of each."""
    by_socket = {link.socket: link for link in links.values()}
    # By default, Linux answers by each of its devices for all of its addresses.
    own_macs = {link.mac for link in links.values()} | _own_macs()
    for ready in select.select(list(by_socket), [], [], seconds)[0]:
        link = by_socket[ready]
        with suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                answer = link.read(ready.recv(_LONGEST_FRAME))
                if answer and answer[1] not in own_macs:
                    yield link.device, answer[0], answer[1].hex(":")


@cache
def _own_macs() -> set[bytes]:
    """Return the MAC addresses of this node's devices."""
    found = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as named:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                named.bind((name, 0))
                found.add(named.getsockname()[4])
    return found


def _open(device: str, version: int) -> _Link | None:
    """Return a link of one IP family; None if its device has none."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as named:
            named.bind((device, 0))
            _, _, _, kind, mac = named.getsockname()
        if kind != _ETHER:
            return None
        link = (_Link4 if version == 4 else _Link6)(device, mac)  # noqa: PLR2004
    except OSError:
        return None
    link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    link.socket.setblocking(False)
    return link


class _Link(ABC):
    """A socket for the questions of one IP family on one device."""

    def __init__(self, device: str, mac: bytes, made: socket.socket) -> None:
        self.device = device
        self.mac = mac
        self.socket = made

    @abstractmethod
    def ask(self, address: Address) -> None:
        """Send one question. Raises ``OSError``."""

    @abstractmethod
    def read(self, frame: bytes) -> tuple[Address, bytes] | None:
        """Return who answers for which address; None if the frame is no answer."""


class _Link4(_Link):
    """ARP."""

    def __init__(self, device: str, mac: bytes) -> None:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP))
        made.bind((device, _ARP))
        super().__init__(device, mac, made)

    def ask(self, address: Address) -> None:
        packet = _ARP_PACKET.pack(
            1, 0x0800, 6, 4, _REQUEST, self.mac, _NO_ADDRESS, _NO_MAC, address.packed
        )
        self.socket.send(_ETHERNET.pack(_BROADCAST, self.mac, _ARP) + packet)

    def read(self, frame: bytes) -> tuple[Address, bytes] | None:
        if len(frame) < _ETHERNET.size + _ARP_PACKET.size:
            return None
        _, _, _, _, _, mac, address, _, _ = _ARP_PACKET.unpack_from(frame, _ETHERNET.size)
        return ip_address(address), mac


class _Link6(_Link):
    """Neighbour discovery."""

    def __init__(self, device: str, mac: bytes) -> None:
        self._index = socket.if_nametoindex(device)
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        for option, value in (
            (socket.IPV6_MULTICAST_IF, self._index),
            (socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT),
            (socket.IPV6_MULTICAST_LOOP, 0),
        ):
            made.setsockopt(socket.IPPROTO_IPV6, option, value)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        blocked = (1 << 256) - 1 & ~(1 << _ADVERTISEMENT)
        mask = struct.pack("=8I", *(blocked >> 32 * word & 0xFFFFFFFF for word in range(8)))
        made.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, mask)
        super().__init__(device, mac, made)

    def ask(self, address: Address) -> None:
        message = _NEIGHBOUR.pack(
            _SOLICITATION, 0, 0, 0, address.packed, _SOURCE_OPTION, 1, self.mac
        )
        group = str(ip_address(_SOLICITED_NODE + address.packed[-3:]))
        self.socket.sendto(message, (group, 0, 0, self._index))

    def read(self, frame: bytes) -> tuple[Address, bytes] | None:
        if len(frame) < _NEIGHBOUR.size:
            return None
        _, _, _, _, address, option, _, mac = _NEIGHBOUR.unpack_from(frame)
        return (ip_address(address), mac) if option == _TARGET_OPTION else None

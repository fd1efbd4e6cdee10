"""Captures every frame that a device sends or receives, like tcpdump."""

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from tests.lab.namespace import Namespace

_EVERY_PROTOCOL = 0x0003  # ETH_P_ALL
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_ICMPV6, _DISCOVERY = 58, {135: "ns", 136: "na"}
_SYN, _INIT_AND_ITS_ANSWER = 0x02, {1, 2}


@dataclass(frozen=True)
class Frame:
    """A frame, as far as the tests ask. `about`: the address that ARP or discovery is for.

    Of TCP and SCTP, "tcp" and "sctp" are the two packets that open a connection; the last ones of
    an earlier connection may still be on their way.
    """

    sent: bool
    kind: str
    source: str = ""
    destination: str = ""
    about: str = ""

    def concerns(self, address: str) -> bool:
        """Whether the frame asks for the address, or announces its owner."""
        of_neighbours = self.kind in {"arp", *_DISCOVERY.values()}
        return of_neighbours and address in {self.source, self.about}


class Capture:
    """The frames of a device since the last call of `frames`."""

    def __init__(self, namespace: Namespace, device: str) -> None:
        self._socket = namespace.call(
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
        )
        self._socket.bind((device, 0))
        self._socket.setblocking(False)

    def frames(self) -> list[Frame]:
        """Return the frames since the last call."""
        found: list[Frame] = []
        while True:
            try:
                data, place = self._socket.recvfrom(65536)
            except BlockingIOError:
                return found
            found.append(_parsed(data, sent=_is_outgoing(place)))

    def close(self) -> None:
        """End the capture."""
        self._socket.close()


def _is_outgoing(place: tuple[Any, ...]) -> bool:
    return bool(place[2] == socket.PACKET_OUTGOING)  # type: ignore[attr-defined,unused-ignore]


def _parsed(data: bytes, *, sent: bool) -> Frame:
    kind, packet = int.from_bytes(data[12:14], "big"), data[14:]
    if kind == _ARP:
        sender, target = str(IPv4Address(packet[14:18])), str(IPv4Address(packet[24:28]))
        return Frame(sent, "arp", sender, about=target)
    if kind == _IPV4:
        ends = str(IPv4Address(packet[12:16])), str(IPv4Address(packet[16:20]))
        return Frame(sent, _kind(packet[9], packet[20:]), *ends)
    if kind == _IPV6:
        ends = str(IPv6Address(packet[8:24])), str(IPv6Address(packet[24:40]))
        if packet[6] == _ICMPV6 and packet[40] in _DISCOVERY:
            return Frame(sent, _DISCOVERY[packet[40]], *ends, str(IPv6Address(packet[48:64])))
        return Frame(sent, _kind(packet[6], packet[40:]), *ends)
    return Frame(sent, "other")


def _kind(protocol: int, content: bytes) -> str:
    if protocol == 6 and content[13] & _SYN:
        return "tcp"
    if protocol == 132 and content[12] in _INIT_AND_ITS_ANSWER:
        return "sctp"
    return "udp" if protocol == 17 else "other"

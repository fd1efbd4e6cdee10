"""Makes many tracked flows at once, and lists those that a kernel tracks."""

import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from tests.lab.namespace import Namespace

#: The senders' addresses are of this network, which is routed nowhere: no answer comes back.
SENDERS = "10.9.0.0/16"
_IP_HEADER = struct.Struct("!BBHHHBBH4s4s")
_UDP_HEADER = struct.Struct("!HHHH")
_FIRST_SENDER = int.from_bytes(socket.inet_aton("10.9.0.1"), "big")
_FIRST_SOURCE_PORT, _SOURCE_PORTS = 1024, 60_000


def tracked_flows(namespace: Namespace) -> str:
    """The flows that the kernel tracks in a namespace, one per line."""
    return namespace.call(lambda: Path("/proc/thread-self/net/nf_conntrack").read_text())


def send_datagrams(namespace: Namespace, destination: str, ports: Iterable[int]) -> None:
    """Send one IPv4 UDP datagram to each port; no two have the same source address and port."""
    with namespace.call(
        lambda: socket.socket(type=socket.SOCK_RAW, proto=socket.IPPROTO_RAW)
    ) as raw:
        for number, port in enumerate(ports):
            raw.sendto(_datagram(number, destination, port), (destination, 0))


def _datagram(number: int, destination: str, port: int) -> bytes:
    """The kernel fills in length, identification and checksum of the IP header."""
    sender = (_FIRST_SENDER + number // _SOURCE_PORTS).to_bytes(4, "big")
    source_port = _FIRST_SOURCE_PORT + number % _SOURCE_PORTS
    header = _IP_HEADER.pack(
        0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, sender, socket.inet_aton(destination)
    )
    return header + _UDP_HEADER.pack(source_port, port, _UDP_HEADER.size, 0)

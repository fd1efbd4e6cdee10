"""The tracked connections to given listening ports, over ctnetlink. It changes none.

To list them, the whole table is read. A resident process can also hear of each connection that
ends. No hook call loads this.
Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import _socket
import struct
from ipaddress import IPv4Address, IPv6Address

from cgw_hooks.core.connection import SCTP_STATES, TCP_STATES, Connection, End, Traffic
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import RulesetError
from cgw_hooks.host import netlink, netlink_events
from cgw_hooks.host.netlink import attribute, attributes, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.published_port import Address, PublishedPort

    Attributes = dict[int, bytes | memoryview]

_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_DESTROYED = 1 << 8 | 2  # IPCTNL_MSG_CT_DELETE
_DESTROYED_GROUP = 3  # NFNLGRP_CONNTRACK_DESTROY, include/uapi/linux/netfilter/nfnetlink.h
#: Some ten thousand connections: each datagram also takes memory for itself.
_BUFFER_SIZE = 16 << 20
#: CTA_*
_ORIGINAL, _REPLY, _STATUS, _PROTOCOL_INFO = 1, 2, 3, 4
_COUNTERS_ORIGINAL, _COUNTERS_REPLY, _TIMESTAMP = 9, 10, 20
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # CTA_PROTO_*
_BYTES = 2  # CTA_COUNTERS_BYTES
_START = 1  # CTA_TIMESTAMP_START
_SEEN_REPLY = 1 << 1  # enum ip_conntrack_status
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
#: Protocol -> attribute of CTA_PROTOINFO, and the names of the states (its first attribute).
_STATES = {"tcp": (1, TCP_STATES), "sctp": (3, SCTP_STATES)}
_HEADER_SIZE = 4  # struct nfgenmsg
_NOWHERE = End(IPv4Address(0), 0)
#: An address is kept as long as a reader lives, so that it is made once for many connections.
_MOST_ADDRESSES = 10_000
_PORT = struct.Struct("!4sH")
_PORT_HEADER = struct.pack("=HH", 6, _DESTINATION_PORT)


class _Family(NamedTuple):
    """What differs between the IP families."""

    number: int
    source: int  # CTA_IP_V4_SRC ...
    destination: int
    address: type[Address]
    size: int  # bytes of an address


_FAMILIES = {
    4: _Family(_socket.AF_INET, 1, 2, IPv4Address, 4),
    6: _Family(_socket.AF_INET6, 3, 4, IPv6Address, 16),
}


def connections_to(ports: Iterable[PublishedPort]) -> list[Connection]:
    """Return the tracked connections whose clients send to one of these listening ports.

    The listening address is not compared, and connections that have ended are among them. Raises
    ``RulesetError`` if the kernel does not answer.
    """
    readers = _readers(ports)
    found: list[Connection] = []
    try:
        with netlink.Channel(netlink.NETFILTER) as channel:
            for number, reader in readers.items():
                found += channel.dump(_GET, bytes([number, 0, 0, 0]), reader.read)
    except OSError as error:
        raise RulesetError("conntrack", f"its flows cannot be listed: {error}") from error
    return found


class EndedConnections:
    """Hears of connections that the kernel forgets. Only one thread may use it.

    The kernel tells of all connections of this network namespace, so most may be about others. It
    forgets a TCP connection two minutes after its end. Raises ``OSError``.
    """

    def __init__(self) -> None:
        self._subscription = netlink_events.Subscription(
            netlink.NETFILTER, [_DESTROYED_GROUP], _BUFFER_SIZE
        )
        self._readers: dict[int, _Reader] = {}

    def fileno(self) -> int:
        """Return the descriptor, which is readable if a connection has ended."""
        return self._subscription.fileno()

    def close(self) -> None:
        """Hear nothing more."""
        self._subscription.close()

    def follow(self, ports: Iterable[PublishedPort]) -> None:
        """Tell only of connections to these listening ports from now on."""
        self._readers = _readers(ports)

    def read(self) -> list[Connection]:
        """Return what the kernel has forgotten; do not wait for more. Some may be lost."""
        found = []
        for kind, payload in self._subscription.read():
            reader = self._readers.get(payload[0]) if kind == _DESTROYED else None
            connection = reader.read(payload) if reader else None
            if connection:
                found.append(connection)
        return found


def is_counting() -> bool:
    """Whether the kernel counts the bytes of new connections in this network namespace."""
    return _is_on("nf_conntrack_acct")


def is_noting_time() -> bool:
    """Whether the kernel notes when new connections begin in this network namespace."""
    return _is_on("nf_conntrack_timestamp")


def is_telling() -> bool:
    """Whether the kernel tells of connections that end, in this network namespace."""
    return _is_on("nf_conntrack_events", "12")  # 2: if anybody listens, since Linux 5.19


def _is_on(name: str, values: str = "1") -> bool:
    try:
        with open(f"/proc/sys/net/netfilter/{name}", encoding="ascii") as file:
            return file.read().strip() in tuple(values)
    except OSError:  # connection tracking is not loaded: there is no connection either
        return False


def _readers(ports: Iterable[PublishedPort]) -> dict[int, _Reader]:
    """Return a reader for each family of these ports, by the kernel's number of the family."""
    wanted: dict[int, dict[str, bytearray]] = {}
    for port in ports:
        of_protocol = wanted.setdefault(port.family, {})
        numbers = of_protocol.setdefault(port.protocol, bytearray(1 << 16))
        numbers[port.start : port.end + 1] = b"\1" * (port.end + 1 - port.start)
    return {
        _FAMILIES[family].number: _Reader(_FAMILIES[family], of_protocol)
        for family, of_protocol in wanted.items()
    }


class _Reader:
    """Reads the kernel's answers. Most may be about other ports, so that costs little."""

    def __init__(self, family: _Family, wanted: dict[str, bytearray]) -> None:
        self._family = family
        self._wanted = wanted
        #: Where the kernel has always written the port (ctnetlink_fill_info).
        self._port_offset = _HEADER_SIZE + 36 + 2 * family.size
        self._anything = bytearray(map(max, *wanted.values(), bytes(1 << 16)))
        # Header and value, again and again; the header of a nest is before that of its first one.
        size = family.size
        self._layout = struct.Struct(f"=8s{size}s4s{size}s8s1s7s2s6s2s2x")
        address = bytes(size)
        ends = attribute(family.source, address) + attribute(family.destination, address)
        ports = (attribute(kind, bytes(2)) for kind in (_SOURCE_PORT, _DESTINATION_PORT))
        proto = attribute(_NUMBER, b"\0") + b"".join(ports)
        made = nested(_TUPLE_IP, ends) + nested(_TUPLE_PROTO, proto)
        self._headers = self._layout.unpack(made)[::2]
        self._addresses: dict[bytes, Address] = {}

    def read(self, payload: memoryview) -> Connection | None:
        """Read one answer; return None for a flow to another port."""
        if len(payload) >= self._port_offset + _PORT.size:
            header, port = _PORT.unpack_from(payload, self._port_offset)
            if header == _PORT_HEADER and not self._anything[port]:
                return None
        found = attributes(bytes(payload[_HEADER_SIZE:]))
        number, client, listen = self._ends(found[_ORIGINAL])
        protocol = _PROTOCOLS.get(number, "")
        if protocol not in self._wanted or not self._wanted[protocol][listen.port]:
            return None
        _, target, seen_as = self._ends(found[_REPLY])
        state = _state(protocol, found)
        return Connection(
            protocol, client, listen, target, seen_as, state, _traffic(found), _began(found)
        )

    def _ends(self, direction: bytes | memoryview) -> tuple[int, End, End]:
        """Return the number of the protocol, source and destination of one direction.

        The kernel has always written the attributes in the same order (ctnetlink_dump_tuples);
        another order is read attribute by attribute, which takes three times as long.
        """
        if len(direction) == self._layout.size:
            values = self._layout.unpack(direction)
            if values[::2] == self._headers:
                _, source, _, destination, _, number, _, from_port, _, to_port = values
                return (
                    number[0],
                    End(self._address(source), int.from_bytes(from_port, "big")),
                    End(self._address(destination), int.from_bytes(to_port, "big")),
                )
        of_direction, family = attributes(direction), self._family
        ip, proto = attributes(of_direction[_TUPLE_IP]), attributes(of_direction[_TUPLE_PROTO])
        if _SOURCE_PORT not in proto:
            return 0, _NOWHERE, _NOWHERE
        return (
            proto[_NUMBER][0],
            End(self._address(bytes(ip[family.source])), _number(proto[_SOURCE_PORT])),
            End(self._address(bytes(ip[family.destination])), _number(proto[_DESTINATION_PORT])),
        )

    def _address(self, packed: bytes) -> Address:
        address = self._addresses.get(packed)
        if address is None:
            if len(self._addresses) >= _MOST_ADDRESSES:
                self._addresses.clear()
            address = self._addresses[packed] = self._family.address(packed)
        return address


def _state(protocol: str, found: Attributes) -> str:
    kind, names = _STATES.get(protocol, (0, ()))
    of_protocol = attributes(attributes(found.get(_PROTOCOL_INFO, b"")).get(kind, b""))
    if 1 in of_protocol:
        number = of_protocol[1][0]
        return names[number] if number < len(names) else "unknown"
    return "answered" if _number(found.get(_STATUS, b"")) & _SEEN_REPLY else "unanswered"


def _traffic(found: Attributes) -> Traffic | None:
    if _COUNTERS_ORIGINAL not in found or _COUNTERS_REPLY not in found:
        return None
    original, reply = attributes(found[_COUNTERS_ORIGINAL]), attributes(found[_COUNTERS_REPLY])
    return Traffic(_number(original.get(_BYTES, b"")), _number(reply.get(_BYTES, b"")))


def _began(found: Attributes) -> float | None:
    nanoseconds = _number(attributes(found.get(_TIMESTAMP, b"")).get(_START, b""))
    return nanoseconds / 1e9 if nanoseconds else None


def _number(value: bytes | memoryview) -> int:
    return int.from_bytes(value, "big")

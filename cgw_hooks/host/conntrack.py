"""Finds and deletes the tracked flows of given listening ports, over ctnetlink.

The kernel filters the flows while it walks its table (CTA_FILTER, since Linux 5.8). A kernel
that ignores or refuses the filter returns all flows: the result is the same, but takes longer.
Hook calls load this module, so it must not import pyroute2.
Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import _socket
import errno
import struct
from ipaddress import IPv4Address, IPv6Address

from cgw_hooks.core.flow import Flow
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.host import netlink
from cgw_hooks.host.netlink import attribute, attributes, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cgw_hooks.core.published_port import Address

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2

_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _ID, _ZONE, _FILTER, _STATUS_MASK = 1, 2, 3, 12, 18, 25, 26
_SEEN_REPLY = 1 << 1  # enum ip_conntrack_status
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUMBER, _PROTO_SOURCE_PORT, _PROTO_DESTINATION_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_BY_SOURCE, _BY_PROTOCOL, _BY_DESTINATION_PORT = 1 << 0, 1 << 3, 1 << 5  # nf_internals.h
_FILTER_REFUSED = {errno.EINVAL, errno.EOPNOTSUPP}

_PROTOCOL_NUMBER = {"tcp": 6, "udp": 17, "sctp": 132}
_NFGENMSG_SIZE = 4


class _Family(NamedTuple):
    """What differs between the IP families."""

    header: bytes  # struct nfgenmsg
    source: int  # CTA_IP_V4_SRC ...
    destination: int
    address: type[Address]
    size: int  # bytes of an address


_FAMILIES = {
    4: _Family(bytes([_socket.AF_INET, 0, 0, 0]), 1, 2, IPv4Address, 4),
    6: _Family(bytes([_socket.AF_INET6, 0, 0, 0]), 3, 4, IPv6Address, 16),
}
_PORT, _PORT_WITH_HEADER = struct.Struct("!H"), struct.Struct("!4sH")
_PORT_HEADER = struct.pack("=HH", 6, _PROTO_DESTINATION_PORT)

#: Costs, relative to the kernel's look at an empty bucket of its table (1). Measured on Linux
#: 6.18 with 262,144 buckets and 0 to 180,000 flows (benchmarks/many_flows.py): 25 ns, 0.3 us,
#: 2.5 us.
_COST_TO_PASS_BY, _COST_TO_HAND_OVER = 12, 100


class Selection(NamedTuple):
    """Selects the flows to some listening ports, of one protocol and IP family.

    ``answered_by`` selects only flows that this address answers. ``unanswered`` selects only
    flows without any answer so far.
    """

    protocol: str
    family: int
    ports: Sequence[range]
    answered_by: Address | None = None
    unanswered: bool = False


class _Ends(NamedTuple):
    """Both ends of one direction of a flow."""

    source: tuple[Address, int]
    destination: tuple[Address, int]


def delete_flows(selection: Selection, condition: Callable[[Flow], bool]) -> int:
    """Delete the selected flows that meet the condition; return their number.

    Raises ``OSError`` if the kernel refuses to list or to delete flows.
    """
    header = _FAMILIES[selection.family].header
    read = _Reader(selection, condition).read
    with netlink.Channel(netlink.NETFILTER) as channel:
        # All flows are found before the first is deleted: a deletion would restart the dump.
        found = _dump(channel, selection, read)
        results = channel.command(_DELETE, (header + identity for identity in found))
    for error in results:
        if error not in {0, errno.ENOENT}:  # ENOENT: the flow has ended by itself
            raise OSError(error, f"conntrack: {errno.errorcode.get(error, error)}")
    return results.count(0)


def _dump(
    channel: netlink.Channel, selection: Selection, read: Callable[[memoryview], bytes | None]
) -> list[bytes]:
    header = _FAMILIES[selection.family].header
    for questions in (_by_who_answers(selection), _by_port(selection)):
        try:
            found = [each for ask in questions for each in channel.dump(_GET, header + ask, read)]
        except OSError as error:
            if error.errno not in _FILTER_REFUSED:
                raise
        else:
            if questions:
                return found
    return channel.dump(_GET, header, read)


def _by_who_answers(selection: Selection) -> list[bytes]:
    """Return the question for the flows that one address answers: one walk over the table.

    There is none for IPv6: the kernel compares IPv6 addresses the wrong way round, and returns
    all flows except those asked for (ctnetlink_filter_match_tuple, seen on Linux 6.18). Some
    kernels read the reply tuple by the flags of the original tuple; they refuse, since it has no
    protocol.
    """
    if not selection.answered_by or selection.family != 4:  # noqa: PLR2004
        return []
    source = attribute(_FAMILIES[4].source, selection.answered_by.packed)
    reply = nested(_TUPLE_REPLY, nested(_TUPLE_IP, source))
    return [_question(selection, _protocol(selection), _BY_PROTOCOL, reply, _BY_SOURCE)]


def _by_port(selection: Selection) -> list[bytes]:
    """Return one question per port, or one for the whole protocol, whichever is cheaper."""
    if not _asks_singly(sum(map(len, selection.ports))):
        return [_question(selection, _protocol(selection), _BY_PROTOCOL)]
    return [
        _question(
            selection,
            _protocol(selection) + attribute(_PROTO_DESTINATION_PORT, _PORT.pack(port)),
            _BY_PROTOCOL | _BY_DESTINATION_PORT,
        )
        for ports in selection.ports
        for port in ports
    ]


def _protocol(selection: Selection) -> bytes:
    return attribute(_PROTO_NUMBER, bytes([_PROTOCOL_NUMBER[selection.protocol]]))


def _question(
    selection: Selection, proto: bytes, proto_flags: int, reply: bytes = b"", reply_flags: int = 0
) -> bytes:
    flags = attribute(_FILTER_ORIG_FLAGS, struct.pack("=I", proto_flags))
    if reply:
        flags += attribute(_FILTER_REPLY_FLAGS, struct.pack("=I", reply_flags))
    question = nested(_TUPLE_ORIG, nested(_TUPLE_PROTO, proto)) + reply + nested(_FILTER, flags)
    if selection.unanswered:
        question += attribute(_STATUS, bytes(4))
        question += attribute(_STATUS_MASK, struct.pack("!I", _SEEN_REPLY))
    return question


def _asks_singly(ports: int) -> bool:
    """Whether it is cheaper to ask about each port separately: one walk over the table per port.

    The alternative is one walk that returns every flow of the protocol. To return a flow costs
    the kernel far more than to skip it.
    """
    flows, buckets = _read_number("nf_conntrack_count"), _read_number("nf_conntrack_buckets")
    walk = buckets + flows * _COST_TO_PASS_BY
    return ports * walk <= buckets + flows * _COST_TO_HAND_OVER


def _read_number(name: str) -> int:
    try:
        with open(f"/proc/sys/net/netfilter/{name}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1


class _Reader:
    """Reads the kernel's answers and finds the selected flows that meet a condition.

    There may be 100,000 answers about other flows. The kernel has always written the attributes
    of a tuple in the same order (ctnetlink_fill_info), so the port and the addresses are read at
    their usual places. An answer with another order is read attribute by attribute.
    """

    def __init__(self, selection: Selection, condition: Callable[[Flow], bool]) -> None:
        self._selection, self._condition = selection, condition
        self._family = family = _FAMILIES[selection.family]
        self._protocol = _PROTOCOL_NUMBER[selection.protocol]
        self._wanted = bytearray(1 << 16)  # index: port; a range of any length is set as one slice
        for ports in selection.ports:
            self._wanted[ports.start : ports.stop] = b"\1" * len(ports)
        low, high = self._tuple(b"\0"), self._tuple(b"\xff")
        #: A mask of the bits that are equal in all tuples: attribute headers, protocol, padding.
        self._mask = ~(low ^ high)
        self._fixed = low & self._mask
        self._port_offset = _NFGENMSG_SIZE + 36 + 2 * family.size
        self._addresses: dict[bytes, Address] = {}

    def read(self, payload: memoryview) -> bytes | None:
        """Read one answer; return the attributes that identify this flow in a delete command.

        Return None for a flow that must not be deleted.
        """
        header, port = _PORT_WITH_HEADER.unpack_from(payload, self._port_offset)
        if header == _PORT_HEADER and not self._wanted[port]:
            return None
        found = attributes(bytes(payload[_NFGENMSG_SIZE:]))
        asked, answering = self._ends(found[_TUPLE_ORIG]), self._ends(found[_TUPLE_REPLY])
        if asked is None or answering is None:
            return None
        flow = Flow(
            self._selection.protocol,
            *asked.destination,
            *answering.source,
            answered=bool(int.from_bytes(found[_STATUS], "big") & _SEEN_REPLY),
        )
        return _identity(found) if self._selects(flow) and self._condition(flow) else None

    def _selects(self, flow: Flow) -> bool:
        selection = self._selection
        return (
            bool(self._wanted[flow.listen_port])
            and not (selection.unanswered and flow.answered)
            and selection.answered_by in {None, flow.answering_address}
        )

    def _ends(self, nest: bytes | memoryview) -> _Ends | None:
        """Return both ends of one direction of a flow; None if its protocol is another."""
        size = self._family.size
        if int.from_bytes(nest, "big") & self._mask == self._fixed:
            ports = 28 + 2 * size
            source, destination = nest[8 : 8 + size], nest[12 + size : 12 + 2 * size]
            source_port, destination_port = nest[ports : ports + 2], nest[ports + 8 : ports + 10]
        else:
            parts = attributes(nest)
            ip, proto = attributes(parts[_TUPLE_IP]), attributes(parts[_TUPLE_PROTO])
            if proto[_PROTO_NUMBER][0] != self._protocol:
                return None
            source, destination = ip[self._family.source], ip[self._family.destination]
            source_port = proto[_PROTO_SOURCE_PORT]
            destination_port = proto[_PROTO_DESTINATION_PORT]
        return _Ends(self._end(source, source_port), self._end(destination, destination_port))

    def _end(self, packed: bytes | memoryview, port: bytes | memoryview) -> tuple[Address, int]:
        packed = bytes(packed)
        address = self._addresses.get(packed)
        if address is None:
            address = self._addresses[packed] = self._family.address(packed)
        return address, int(_PORT.unpack(port)[0])

    def _tuple(self, filler: bytes) -> int:
        """Return the kernel's text of one direction, with ``filler`` in all addresses and ports."""
        family, address = self._family, filler * self._family.size
        ip = nested(
            _TUPLE_IP, attribute(family.source, address), attribute(family.destination, address)
        )
        proto = nested(
            _TUPLE_PROTO,
            attribute(_PROTO_NUMBER, bytes([self._protocol])),
            attribute(_PROTO_SOURCE_PORT, filler * 2),
            attribute(_PROTO_DESTINATION_PORT, filler * 2),
        )
        return int.from_bytes(ip + proto, "big")


def _identity(found: dict[int, bytes | memoryview]) -> bytes:
    identity = nested(_TUPLE_ORIG, bytes(found[_TUPLE_ORIG]))
    for kind in (_ZONE, _ID):
        if kind in found:
            identity += attribute(kind, bytes(found[kind]))
    return identity

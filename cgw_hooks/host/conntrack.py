"""Tracked flows: find them by listening port, delete them. Speaks ctnetlink itself.

On the hook's path, where pyroute2 (146 ms to import) is out of the question. The
kernel filters while it dumps (CTA_FILTER, Linux 5.8 on), so what other flows
there are costs no more than a walk over the table.
Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address

from cgw_hooks.core.flow import Flow
from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from cgw_hooks.core.published_port import Address

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF

_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _ID, _ZONE, _FILTER, _STATUS_MASK = 1, 2, 3, 12, 18, 25, 26
_SEEN_REPLY = 1 << 1  # enum ip_conntrack_status
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SOURCE = {4: 1, 6: 3}
_IP_DESTINATION = {4: 2, 6: 4}
_PROTO_NUMBER, _PROTO_SOURCE_PORT, _PROTO_DESTINATION_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS = 1
_FILTER_PROTO_NUMBER, _FILTER_PROTO_DESTINATION_PORT = 1 << 3, 1 << 5

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROTOCOL_NUMBER = {"tcp": 6, "udp": 17, "sctp": 132}

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NFGENMSG = struct.Struct("!BBH")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BUFFER = 1 << 20
#: Up to so many ports are asked for one by one, each a walk over the kernel's table
#: (5 ms at its usual size); more, in one walk that hands over every flow of the protocol.
_PORTS_ASKED_SINGLY = 4


class _Entry(NamedTuple):
    """A flow, with what the kernel wants to hear to delete just this one."""

    flow: Flow
    family: int
    identity: bytes


def delete_flows(
    family: int,
    protocol: str,
    ports: Collection[int],
    condition: Callable[[Flow], bool],
    *,
    unanswered: bool = False,
) -> int:
    """Delete the flows to these listening ports that meet the condition; say how many.

    ``unanswered``: only of those that never had an answer.

    Raises ``OSError`` where the kernel refuses to tell or to delete.
    """
    questions: Iterable[int | None] = ports if len(ports) <= _PORTS_ASKED_SINGLY else (None,)
    deleted = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        for port in questions:
            # The whole answer first: a deletion in the middle of a dump restarts it.
            for entry in list(_dump(netlink, family, protocol, port, unanswered)):
                flow = entry.flow
                if unanswered and flow.answered:
                    continue  # a kernel that does not know the mask hands them over
                if flow.listen_port in ports and condition(flow):
                    deleted += _delete(netlink, entry)
    return deleted


def _dump(
    netlink: socket.socket, family: int, protocol: str, port: int | None, unanswered: bool
) -> Iterator[_Entry]:
    wanted = _attribute(_PROTO_NUMBER, bytes([_PROTOCOL_NUMBER[protocol]]))
    flags = _FILTER_PROTO_NUMBER
    if port is not None:
        wanted += _attribute(_PROTO_DESTINATION_PORT, struct.pack("!H", port))
        flags |= _FILTER_PROTO_DESTINATION_PORT
    question = _nested(_TUPLE_ORIG, _nested(_TUPLE_PROTO, wanted))
    question += _nested(_FILTER, _attribute(_FILTER_ORIG_FLAGS, struct.pack("=I", flags)))
    if unanswered:
        question += _attribute(_STATUS, bytes(4))
        question += _attribute(_STATUS_MASK, struct.pack("!I", _SEEN_REPLY))
    for payload in _exchange(netlink, _GET, _REQUEST | _DUMP, family, question):
        yield _entry(payload[_NFGENMSG.size :], family, protocol)


def _entry(payload: bytes, family: int, protocol: str) -> _Entry:
    attributes = dict(_attributes(payload))
    asked, answered = attributes[_TUPLE_ORIG], attributes[_TUPLE_REPLY]
    flow = Flow(
        protocol,
        *_end(asked, _IP_DESTINATION[family], _PROTO_DESTINATION_PORT),
        *_end(answered, _IP_SOURCE[family], _PROTO_SOURCE_PORT),
        answered=bool(int.from_bytes(attributes[_STATUS], "big") & _SEEN_REPLY),
    )
    identity = _nested(_TUPLE_ORIG, attributes[_TUPLE_ORIG])
    for kind in (_ZONE, _ID):
        if kind in attributes:
            identity += _attribute(kind, attributes[kind])
    return _Entry(flow, family, identity)


def _end(nested: bytes, ip_kind: int, port_kind: int) -> tuple[Address, int]:
    """One end of one direction of a flow."""
    parts = dict(_attributes(nested))
    ip, proto = dict(_attributes(parts[_TUPLE_IP])), dict(_attributes(parts[_TUPLE_PROTO]))
    return ip_address(ip[ip_kind]), int.from_bytes(proto[port_kind], "big")


def _delete(netlink: socket.socket, entry: _Entry) -> int:
    try:
        for _ in _exchange(netlink, _DELETE, _REQUEST | _ACK, entry.family, entry.identity):
            pass
    except OSError as error:
        if error.errno != errno.ENOENT:  # it ended by itself meanwhile
            raise
        return 0
    return 1


def _exchange(
    netlink: socket.socket, kind: int, flags: int, family: int, attributes: bytes
) -> Iterator[bytes]:
    """Send one message and yield the answers, until the kernel says that it was the last."""
    body = _NFGENMSG.pack(_FAMILY[family], 0, 0) + attributes
    netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body)
    while True:
        data = netlink.recv(_RECEIVE_BUFFER)
        while data:
            length, answer, _, _, _ = _HEADER.unpack_from(data)
            payload = data[_HEADER.size : length]
            if answer in {_ERROR, _DONE}:
                code = -int.from_bytes(payload[:4], "little", signed=True) if payload else 0
                if code:
                    raise OSError(code, f"conntrack: {errno.errorcode.get(code, code)}")
                return
            yield payload
            data = data[_aligned(length) :]


def _attributes(payload: bytes) -> Iterator[tuple[int, bytes]]:
    while payload:
        length, kind = _ATTRIBUTE.unpack_from(payload)
        yield kind & _TYPE_MASK, payload[_ATTRIBUTE.size : length]
        payload = payload[_aligned(length) :]


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _aligned(length: int) -> int:
    return (length + 3) & ~3

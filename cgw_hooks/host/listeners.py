"""Which ports the node's own processes listen on, as the kernel tells it.

The kernel is asked once for a protocol and IP family (sock_diag), and it tells of listeners
alone: neither the number of connections nor the number of published ports changes the cost.
Published ports are no sockets, so a port that a guest publishes is not among these.

On the hook's path: no ``socket`` (see ``netlink``).
Source: include/uapi/linux/inet_diag.h, net/ipv4/inet_diag.c, net/ipv4/udp_diag.c.
"""

from __future__ import annotations

import _socket
import errno
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from cgw_hooks.core.ownership import Listener
from cgw_hooks.host import netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.published_port import Address

_FAMILY = {4: _socket.AF_INET, 6: _socket.AF_INET6}
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2: family, protocol, ext, states
# struct inet_diag_msg as far as it is used: family, state, source port, source address.
_ANSWER = struct.Struct("!BBxxHxx16s")
_ANSWER_SIZE = 72
_ONLY_IPV6 = 11  # INET_DIAG_SKV6ONLY

# include/net/tcp_states.h. A UDP socket that is bound and not connected is in state CLOSE, one
# that is connected (a DNS client, for example) in ESTABLISHED. An SCTP endpoint that listens
# has the state of a TCP socket that does (include/net/sctp/constants.h).
_CLOSE, _LISTEN = 7, 10
_STATE = {"tcp": _LISTEN, "udp": _CLOSE}
_NUMBER = {"tcp": 6, "udp": 17}

#: Of the calling thread's own network namespace; /proc/net is the process's.
_PROC = "/proc/thread-self/net/"
#: What the kernel says where it was built without sock_diag for this protocol or family
#: (ENOENT, EINVAL, EPROTONOSUPPORT), or where a sandbox forbids netlink.
_NO_SOCK_DIAG = {
    errno.EACCES, errno.EAFNOSUPPORT, errno.EINVAL, errno.ENOENT, errno.EPERM,
    errno.EPROTONOSUPPORT,
}  # fmt: skip

_ANY4, _ANY6 = IPv4Address(0), IPv6Address(0)


def listening(protocols: Iterable[str]) -> list[Listener]:
    """Return the ports of these protocols ("tcp", "udp", "sctp") that processes listen on.

    A protocol or IP family that the kernel does not have has no listeners. Raises ``OSError``
    where the kernel has them and does not tell.
    """
    found: list[Listener] = []
    for protocol in protocols:
        if protocol == "sctp":
            found += _sctp_listeners()
            continue
        for version in _FAMILY:
            try:
                found += _ask_sock_diag(protocol, version)
            except OSError as error:
                if error.errno not in _NO_SOCK_DIAG:
                    raise
                found += _read_proc(protocol, version)
    return list(dict.fromkeys(found))  # SO_REUSEPORT: many sockets may share one port


def is_local(address: Address) -> bool:
    """Whether a packet to the address is for this node, as bind(2) tells it."""
    if address.is_unspecified:
        return True
    probe = _socket.socket(_FAMILY[address.version], _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        probe.bind((str(address), 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    finally:
        probe.close()
    return True


def _ask_sock_diag(protocol: str, version: int) -> list[Listener]:
    def read(payload: memoryview) -> tuple[Listener, ...] | None:
        family, state, port, packed = _ANSWER.unpack_from(payload)
        if state != _STATE[protocol] or family != _FAMILY[version] or not port:
            return None
        if version == 4:  # noqa: PLR2004
            return (Listener(protocol, IPv4Address(packed[:4]), port),)
        only6 = netlink.attributes(payload[_ANSWER_SIZE:]).get(_ONLY_IPV6, b"\0")[0]
        return _listeners_of(protocol, IPv6Address(packed), port, both_families=not only6)

    request = _REQUEST.pack(_FAMILY[version], _NUMBER[protocol], 0, 1 << _STATE[protocol])
    with netlink.Channel(netlink.SOCK_DIAG) as channel:
        answers = channel.dump(_SOCK_DIAG_BY_FAMILY, request, read)
    return [listener for answer in answers for listener in answer]


def _listeners_of(
    protocol: str, address: Address, port: int, *, both_families: bool = True
) -> tuple[Listener, ...]:
    """Return what an IPv6 socket serves: an IPv4-mapped address is IPv4 (RFC 4291, 2.5.5.2)."""
    if address == _ANY6 and both_families:
        return (Listener(protocol, _ANY6, port), Listener(protocol, _ANY4, port))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (Listener(protocol, mapped or address, port),)


def _read_proc(protocol: str, version: int) -> Iterator[Listener]:
    """Yield what /proc/net/tcp and the like tell (net/ipv4/tcp_ipv4.c).

    They do not tell whether an IPv6 socket serves IPv4 too; it is taken to do so.
    """
    for columns in _lines(protocol if version == 4 else f"{protocol}6"):  # noqa: PLR2004
        if int(columns[3], 16) != _STATE[protocol]:
            if protocol == "tcp":
                return  # the listening sockets stand first
            continue
        address, _, port = columns[1].partition(":")
        words = bytes.fromhex(address)  # 32-bit words in the order of the machine's bytes
        count = len(words) // 4
        packed = struct.pack(f"={count}I", *struct.unpack(f">{count}I", words))
        yield from _listeners_of(protocol, ip_address(packed), int(port, 16))


def _sctp_listeners() -> Iterator[Listener]:
    """Yield the SCTP endpoints that listen, each with all its addresses (net/sctp/proc.c).

    The file is not there where the kernel has no SCTP, or has not loaded it: nobody listens
    then. It does not tell whether an IPv6 endpoint serves IPv4 too; it is taken to do so.
    """
    for columns in _lines("sctp/eps"):
        if int(columns[3]) == _LISTEN:
            for address in columns[8:]:
                yield from _listeners_of("sctp", ip_address(address), int(columns[5]))


def _lines(name: str) -> Iterator[list[str]]:
    """Yield the columns of each line below the heading; nothing if there is no such file."""
    try:
        file = open(_PROC + name, encoding="ascii")  # noqa: SIM115 - closed below
    except OSError:
        return
    with file:
        next(file, None)
        for line in file:
            yield line.split()

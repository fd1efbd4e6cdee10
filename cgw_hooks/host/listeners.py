"""The ports that the node's own processes listen on, as the kernel reports them.

The kernel is asked once per protocol and IP family (sock_diag), and returns only listeners. So the
cost depends neither on the number of connections nor on that of published ports. A published port
is no socket, so it is not among these ports.

Hook calls load this module, so it must not import ``socket`` (see ``netlink``).
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
# The used part of struct inet_diag_msg: family, state, source port, source address.
_ANSWER = struct.Struct("!BBxxHxx16s")
_ANSWER_SIZE = 72
_ONLY_IPV6 = 11  # INET_DIAG_SKV6ONLY

# include/net/tcp_states.h. A bound UDP socket is in state CLOSE; a connected one (for example of
# a DNS client) is in ESTABLISHED. A listening SCTP endpoint has the state of a listening TCP
# socket (include/net/sctp/constants.h).
_CLOSE, _LISTEN = 7, 10
_STATE = {"tcp": _LISTEN, "udp": _CLOSE}
_NUMBER = {"tcp": 6, "udp": 17}

#: The network namespace of the calling thread; /proc/net would be that of the process.
_PROC = "/proc/thread-self/net/"
#: The errors of a kernel that was built without sock_diag for this protocol or family (ENOENT,
#: EINVAL, EPROTONOSUPPORT), or of a sandbox that forbids netlink.
_NO_SOCK_DIAG = {
    errno.EACCES, errno.EAFNOSUPPORT, errno.EINVAL, errno.ENOENT, errno.EPERM,
    errno.EPROTONOSUPPORT,
}  # fmt: skip

_ANY4, _ANY6 = IPv4Address(0), IPv6Address(0)


def listening(protocols: Iterable[str]) -> list[Listener]:
    """Return the ports of these protocols ("tcp", "udp", "sctp") that processes listen on.

    A protocol or IP family that the kernel lacks has no listeners. Raises ``OSError`` if the
    kernel does not answer for another reason.
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
    """Whether a process of this node can listen on the address, as bind(2) decides."""
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
    """Return the listeners of a socket; an IPv4-mapped address is IPv4 (RFC 4291, 2.5.5.2)."""
    if address == _ANY6 and both_families:
        return (Listener(protocol, _ANY6, port), Listener(protocol, _ANY4, port))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (Listener(protocol, mapped or address, port),)


def _read_proc(protocol: str, version: int) -> Iterator[Listener]:
    """Yield the listeners of /proc/net/tcp and the like (net/ipv4/tcp_ipv4.c).

    These files do not say whether an IPv6 socket also serves IPv4, so it counts for both
    families.
    """
    for columns in _lines(protocol if version == 4 else f"{protocol}6"):  # noqa: PLR2004
        if int(columns[3], 16) != _STATE[protocol]:
            if protocol == "tcp":
                return  # the listening sockets come first
            continue
        address, _, port = columns[1].partition(":")
        words = bytes.fromhex(address)  # 32-bit words in the machine's byte order
        count = len(words) // 4
        packed = struct.pack(f"={count}I", *struct.unpack(f">{count}I", words))
        yield from _listeners_of(protocol, ip_address(packed), int(port, 16))


def _sctp_listeners() -> Iterator[Listener]:
    """Yield the SCTP endpoints that listen, each with all its addresses (net/sctp/proc.c).

    The file is missing if the kernel has no SCTP or has not loaded it; then nothing listens. The
    file does not say whether an IPv6 endpoint also serves IPv4, so it counts for both families.
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

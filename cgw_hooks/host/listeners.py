"""Which ports the node's own processes listen on, found by trying to bind.

That costs the same however many connections the node has. Published ports are
no sockets, so a port that a guest publishes reads as free here.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.published_port import Address, Claim

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_TYPE = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_TCP_LISTEN = "0A"  # state column of /proc/net/tcp, include/net/tcp_states.h
_STATE_COLUMN, _LOCAL_COLUMN = 3, 1


def taken_by_node(claims: Iterable[Claim]) -> Claim | None:
    """The first of these that a process of the node listens on."""
    for claim in claims:
        if _cannot_bind(claim) and not (claim.protocol == "tcp" and _is_outgoing_only(claim)):
            return claim
    return None


def is_local(address: Address) -> bool:
    """Whether a packet to the address is for this node, as bind(2) tells it."""
    if address.is_unspecified:
        return True
    with socket.socket(_FAMILY[address.version], socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def _cannot_bind(claim: Claim) -> bool:
    kind, protocol = _TYPE[claim.protocol]
    try:
        probe = socket.socket(_FAMILY[claim.address.version], kind, protocol)
    except OSError:
        return False  # the kernel has no such protocol or family: nobody listens
    with probe:
        if claim.address.version == 6:  # noqa: PLR2004
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if claim.protocol == "tcp":
            # Sockets in TIME_WAIT do not count, and a server that starts at this very
            # moment is not hindered. For UDP the option would hide a server that has it too.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(claim.address), claim.port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _is_outgoing_only(claim: Claim) -> bool:
    """Whether the port is only the near end of outgoing connections, which harm nobody.

    /proc/net/tcp lists the listening sockets first: reading stops behind them.
    """
    port = f":{claim.port:04X}"
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path, encoding="ascii") as file:
                next(file)
                for line in file:
                    columns = line.split()
                    if columns[_STATE_COLUMN] != _TCP_LISTEN:
                        break
                    if columns[_LOCAL_COLUMN].endswith(port):
                        return False
        except OSError:
            continue
    return True

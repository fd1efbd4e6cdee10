"""The kernel's news through netlink: messages to a multicast group, for a resident process.

This module knows the format of messages, not their meaning. No hook call loads it.
Source: include/uapi/linux/netlink.h, net/netlink/af_netlink.c.
"""

from __future__ import annotations

import _socket
import errno
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

#: The type of the message that stands for messages that were lost (NLMSG_OVERRUN).
LOST = 4

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1  # include/linux/socket.h, NETLINK_ADD_MEMBERSHIP
_SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h
_NOTHING = memoryview(b"")
#: The longest datagram: one message about one object. Groups of messages are at most 32 KiB.
_DATAGRAM = 1 << 18
#: Datagrams per ``read``. A caller that selects is called again, so that no flood holds it.
_DATAGRAMS_AT_ONCE = 4096


class Subscription:
    """A socket that has joined multicast groups of one netlink protocol.

    ``groups`` are group numbers (not a bit mask). ``buffer_size`` is in bytes: more than what
    the kernel says while the process does something else. Only one thread may use it. Raises
    ``OSError`` if the kernel refuses a group.
    """

    def __init__(self, protocol: int, groups: Iterable[int], buffer_size: int = 1 << 20) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        self._socket = _socket.socket(_socket.AF_NETLINK, kind, protocol)
        self._buffer = bytearray(_DATAGRAM)
        try:
            self._enlarge(buffer_size)
            self._socket.bind((0, 0))
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, which is readable if there is news."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave the groups."""
        self._socket.close()

    def read(self) -> Iterator[tuple[int, memoryview]]:
        """Yield type and payload of each message that has come; do not wait for more.

        The type ``LOST``, with an empty payload, means that messages were lost at this place. A
        payload is valid only until the next one is asked for.
        """
        view = memoryview(self._buffer)
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                # MSG_TRUNC returns the datagram's real length, even if the buffer is too short.
                size = self._socket.recv_into(self._buffer, 0, _socket.MSG_TRUNC)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield LOST, _NOTHING
                continue
            if size > _DATAGRAM:
                yield LOST, _NOTHING
                continue
            offset = 0
            while offset + _HEADER.size <= size:
                length, kind, *_rest = _HEADER.unpack_from(view, offset)
                if length < _HEADER.size:
                    break
                yield kind, view[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3

    def _enlarge(self, size: int) -> None:
        try:
            self._socket.setsockopt(_socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except PermissionError:  # without CAP_NET_ADMIN; net.core.rmem_max limits this one
            self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, size)

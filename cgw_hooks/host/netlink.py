"""One raw netlink channel to the kernel: requests, dumps and their attributes.

This module knows the format of messages, not their meaning. Hook calls load it, so it must not
import pyroute2 (146 ms) or ``socket`` (5 ms). ``_socket`` is the part of ``socket`` that is
written in C, and is enough here.
Source: include/uapi/linux/netlink.h, net/netlink/af_netlink.c, RFC 3549.
"""

from __future__ import annotations

import _socket
import errno
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self, TypeVar

    Result = TypeVar("Result")

#: Netlink protocols, include/uapi/linux/netlink.h.
ROUTE, SOCK_DIAG, NETFILTER = 0, 4, 12

CREATE = 0x400  #: NLM_F_CREATE

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_ERROR_CODE = struct.Struct("=i")
_REQUEST, _ACK, _DUMP = 0x01, 0x04, 0x300
_DUMP_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR, in the flags of an answer
_NOOP, _ERROR, _DONE, _OVERRUN = 1, 2, 3, 4
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
#: The kernel returns at most 32 KiB of a dump at once (netlink_dump). Only a single message, for
#: example about one link with many virtual functions, can be longer.
_BUFFER_SIZE = 1 << 18
#: The number of commands in one datagram. If all fail, their error messages must fit into the
#: socket's receive buffer (208 KiB by default; each message takes 1 to 2 KiB).
_COMMANDS_AT_ONCE = 64
_DUMP_ATTEMPTS = 5


class Channel:
    """A netlink socket of one protocol, as a context manager. Only one thread may use it."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._socket = self._open()
        self._buffer = bytearray(_BUFFER_SIZE)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, kind: int, body: bytes, flags: int = 0) -> list[bytes]:
        """Send one request and return the payloads of its answers.

        ``flags`` are flags of the request, such as ``CREATE``. Raises ``OSError`` with the
        kernel's error number.
        """
        return [bytes(payload) for payload in self._exchange(kind, _ACK | flags, body)]

    def dump(
        self, kind: int, body: bytes, read: Callable[[memoryview], Result | None]
    ) -> list[Result]:
        """Ask for all objects of a kind; return what ``read`` returns for each, except None.

        ``read`` may be called again for the same object: a dump is repeated if the kernel says
        that it is not consistent, or if an answer was lost. A payload is valid only during the
        call; ``read`` must copy what it keeps. If ``read`` raises an error, the channel must not
        be used any more. Raises ``OSError`` with the kernel's error number, and
        ``InterruptedError`` if none of several dumps was consistent.
        """
        for _ in range(_DUMP_ATTEMPTS):
            try:
                return [
                    result
                    for payload in self._exchange(kind, _DUMP, body)
                    if (result := read(payload)) is not None
                ]
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # The kernel may not have ended this dump, and a socket can have only one.
                self._socket.close()
                self._socket = self._open()
        raise InterruptedError(errno.EINTR, "netlink: the objects changed during every dump")

    def command(self, kind: int, bodies: Iterable[bytes]) -> list[int]:
        """Carry out many commands of one kind; return the error number of each, 0 for done.

        Raises ``OSError`` if the channel itself fails; then it is unknown which were carried
        out.
        """
        waiting = list(bodies)
        results: list[int] = []
        for start in range(0, len(waiting), _COMMANDS_AT_ONCE):
            results += self._batch(kind, waiting[start : start + _COMMANDS_AT_ONCE])
        return results

    def _open(self) -> _socket.socket:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        return _socket.socket(_socket.AF_NETLINK, kind, self._protocol)

    def _batch(self, kind: int, bodies: list[bytes]) -> list[int]:
        """Send commands in one datagram. Only the last one asks for an answer if it succeeds."""
        first, results = self._sequence + 1, [0] * len(bodies)
        flags = [0] * (len(bodies) - 1) + [_ACK]
        self._socket.send(b"".join(map(self._message, [kind] * len(bodies), flags, bodies)))
        ended = False
        while not ended:
            for answer, _, sequence, payload in self._receive():
                if answer == _ERROR and first <= sequence <= self._sequence:
                    results[sequence - first] = _error_number(payload)
                    ended |= sequence == self._sequence
        return results

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, kind, _REQUEST | flags, self._sequence, 0)
        return header + body + bytes(_aligned(length) - length)

    def _exchange(self, kind: int, flags: int, body: bytes) -> Iterator[memoryview]:
        """Send one request and yield the payloads until the kernel says that it has ended."""
        self._socket.send(self._message(kind, flags, body))
        expected, interrupted = self._sequence, False
        while True:
            for answer, answer_flags, sequence, payload in self._receive():
                if sequence != expected:
                    continue  # it belongs to an earlier exchange that was abandoned
                interrupted |= bool(answer_flags & _DUMP_INTERRUPTED)
                if answer in {_ERROR, _DONE}:
                    number = _error_number(payload)
                    if number:
                        raise OSError(number, f"netlink: {errno.errorcode.get(number, number)}")
                    if interrupted:
                        raise InterruptedError(errno.EINTR, "netlink: the dump is not consistent")
                    return
                if answer == _OVERRUN:
                    raise OSError(errno.ENOBUFS, "netlink: answers were lost")
                if answer != _NOOP:
                    yield payload

    def _receive(self) -> Iterator[tuple[int, int, int, memoryview]]:
        """Yield type, flags, sequence number and payload of each message of one datagram."""
        # MSG_TRUNC returns the datagram's real length, even if the buffer is too short.
        size = self._socket.recv_into(self._buffer, 0, _socket.MSG_TRUNC)
        if size > _BUFFER_SIZE:
            raise OSError(errno.EMSGSIZE, f"netlink: an answer of {size} bytes is too long")
        view, offset = memoryview(self._buffer), 0
        while offset + _HEADER.size <= size:
            length, answer, flags, sequence, _ = _HEADER.unpack_from(view, offset)
            yield answer, flags, sequence, view[offset + _HEADER.size : offset + length]
            offset += _aligned(length)


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds other attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def attributes(payload: bytes | memoryview) -> dict[int, bytes | memoryview]:
    """Split a payload into attributes by type; the last one of each type counts."""
    return dict(listed(payload))


def listed(payload: bytes | memoryview) -> Iterator[tuple[int, bytes | memoryview]]:
    """Yield type and content of each attribute: in a list, all have the same type."""
    offset, end = 0, len(payload) - _ATTRIBUTE.size
    while offset <= end:
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        yield kind & _TYPE_MASK, payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3 or 4  # a length of 0 must not loop forever


def _error_number(payload: memoryview) -> int:
    """Return the error number of an ERROR or DONE message, 0 for success."""
    return -int(_ERROR_CODE.unpack_from(payload)[0]) if len(payload) >= _ERROR_CODE.size else 0


def _aligned(length: int) -> int:
    return (length + 3) & ~3

"""A client in a network namespace, with real sockets: it asks ports and returns the outcome."""

import errno
import ipaddress
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.lab import sctp
from tests.lab.namespace import Namespace
from tests.lab.reply import Outcome, Reply, parse_reply

DEFAULT_PATIENCE = 30.0
"""Seconds within which an answer comes on a busy machine too."""
PATIENCE_FOR_SILENCE = 1.0
"""Where no answer is expected: all of it is waited."""
_POLL_INTERVAL = 0.02
_FIRST_POLL_PATIENCE, _LONGEST_POLL_PATIENCE = 0.15, 5.0
"""A guest that boots drops packets, so the first questions are short; a guest on a busy machine
answers late, so later ones are longer."""
_LONGEST_WAIT = 300.0
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.ENETDOWN}
_PROTOCOL_UNREACHABLE = {errno.ENOPROTOOPT, errno.EPROTO}
"""What a raw socket reports then, over IPv4 and over IPv6."""
_LONGEST_ANSWER = 65536


class TcpSession:
    """An established TCP connection to an echo port."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def exchange(self, text: str, timeout: float = DEFAULT_PATIENCE) -> str:
        """Send `text` and return what comes back, of the same length.

        Raises TimeoutError, or ConnectionError when the connection is gone.
        """
        self._connection.settimeout(timeout)
        sent = text.encode()
        self._connection.sendall(sent)
        received = b""
        while len(received) < len(sent):
            part = self._connection.recv(len(sent) - len(received))
            if not part:
                raise ConnectionResetError("closed by the peer")
            received += part
        return received.decode()

    def send(self, text: str) -> None:
        """Send without waiting for an answer."""
        self._connection.sendall(text.encode())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class UdpSender:
    """A UDP client that keeps its source port."""

    def __init__(self, endpoint: socket.socket) -> None:
        self._endpoint = endpoint

    def send(self, payload: str = "hello") -> None:
        """Send without reading an answer; a refusal of an earlier packet is ignored."""
        try:
            self._endpoint.send(payload.encode())
        except OSError:
            self._endpoint.send(payload.encode())

    def exchange(self, payload: str = "hello", timeout: float = DEFAULT_PATIENCE) -> Reply:
        """Send one packet and return its answer."""
        self._endpoint.settimeout(timeout)

        def ask() -> str:
            self._endpoint.send(payload.encode())
            while True:
                answer = self._endpoint.recv(_LONGEST_ANSWER).decode()
                if answer.endswith(payload):  # not a late answer to an earlier packet
                    return answer

        return _reply(ask)

    def close(self) -> None:
        """Release the source port."""
        self._endpoint.close()


class Client:
    """Asks ports from inside a namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def tcp(
        self, address: str, port: int, *, timeout: float = DEFAULT_PATIENCE, source_port: int = 0
    ) -> Reply:
        """Connect and read one line."""
        endpoint = self._socket(address, socket.SOCK_STREAM, source_port=source_port)
        with endpoint:
            endpoint.settimeout(timeout)
            return _reply(lambda: _connect_and_read_line(endpoint, address, port))

    def udp(
        self,
        address: str,
        port: int,
        payload: str = "hello",
        *,
        timeout: float = DEFAULT_PATIENCE,
        source_port: int = 0,
    ) -> Reply:
        """Send one packet and read the answer, which must come from the packet's destination."""
        with self.udp_sender(address, port, source_port=source_port) as sender:
            return sender.exchange(payload, timeout)

    def sctp(
        self,
        address: str,
        port: int,
        payload: str = "hello",
        *,
        timeout: float = DEFAULT_PATIENCE,
        source_port: int = 0,
    ) -> Reply:
        """Open an association, send one message and read the answer."""
        source_port = source_port or random.randrange(32768, 61000)  # noqa: S311 - no secret
        with self._socket(address, socket.SOCK_RAW, sctp.PROTOCOL) as raw:

            def ask() -> str:
                raw.connect((address, 0))
                return sctp.ask(raw, port, source_port, payload.encode(), timeout).decode()

            return _reply(ask)

    @contextmanager
    def tcp_session(
        self, address: str, port: int, *, timeout: float = DEFAULT_PATIENCE
    ) -> Iterator[TcpSession]:
        """Connect to an echo port, and stay connected. Raises OSError when that fails."""
        with self._socket(address, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect((address, port))
            yield TcpSession(connection)

    @contextmanager
    def udp_sender(self, address: str, port: int, *, source_port: int = 0) -> Iterator[UdpSender]:
        """A sender that keeps its source port (0: any free one)."""
        with self._socket(address, socket.SOCK_DGRAM, source_port=source_port) as endpoint:
            endpoint.connect((address, port))
            yield UdpSender(endpoint)

    def ask(
        self, protocol: str, address: str, port: int, *, timeout: float = DEFAULT_PATIENCE
    ) -> Reply:
        """Ask over "tcp", "udp" or "sctp"."""
        if protocol == "tcp":
            return self.tcp(address, port, timeout=timeout)
        if protocol == "udp":
            return self.udp(address, port, timeout=timeout)
        return self.sctp(address, port, timeout=timeout)

    def until_answered(
        self, protocol: str, address: str, port: int, *, within: float = _LONGEST_WAIT
    ) -> Reply:
        """Ask again and again until there is an answer; return the last outcome."""
        return self._poll(protocol, address, port, within, wanted=True)

    def until_closed(
        self, protocol: str, address: str, port: int, *, within: float = _LONGEST_WAIT
    ) -> Reply:
        """Ask again and again until there is no answer; return the last outcome."""
        return self._poll(protocol, address, port, within, wanted=False)

    def _poll(
        self, protocol: str, address: str, port: int, within: float, *, wanted: bool
    ) -> Reply:
        deadline = time.monotonic() + within
        # A late answer is an answer: the port must not count as closed.
        patience = _FIRST_POLL_PATIENCE if wanted else PATIENCE_FOR_SILENCE
        while True:
            reply = self.ask(protocol, address, port, timeout=patience)
            if reply.answered is wanted or time.monotonic() > deadline:
                return reply
            if reply.outcome is Outcome.TIMED_OUT:
                patience = min(2 * patience, _LONGEST_POLL_PATIENCE)
            time.sleep(_POLL_INTERVAL)

    def _socket(
        self, address: str, kind: int, protocol: int = 0, *, source_port: int = 0
    ) -> socket.socket:
        ipv6 = ipaddress.ip_address(address).version == 6
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        made = self._namespace.call(lambda: socket.socket(family, kind, protocol))
        if source_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(("", source_port))
        return made


def _connect_and_read_line(endpoint: socket.socket, address: str, port: int) -> str:
    endpoint.connect((address, port))
    received = b""
    try:
        while not received.endswith(b"\n"):
            part = endpoint.recv(_LONGEST_ANSWER)
            if not part:
                break
            received += part
    except ConnectionError:
        return ""
    return received.decode()


def _reply(ask: Callable[[], str]) -> Reply:
    try:
        return parse_reply(ask())
    except TimeoutError:
        return Reply(Outcome.TIMED_OUT)
    except (ConnectionError, sctp.Aborted):
        return Reply(Outcome.REFUSED)
    except OSError as error:
        if error.errno in _UNREACHABLE:
            return Reply(Outcome.UNREACHABLE)
        if error.errno in _PROTOCOL_UNREACHABLE:
            return Reply(Outcome.REFUSED)
        raise

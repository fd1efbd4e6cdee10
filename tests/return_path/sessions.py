"""Connections of which the test holds both ends: the client's socket and the guest's.

So a test says who speaks, and when: "the guest speaks first after the move" needs no clock.
"""

import itertools
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from tests.lab.namespace import Namespace

#: Seconds in which a packet comes on a busy machine, however often TCP must repeat it.
PATIENCE = 120.0
#: Seconds after which a datagram that nobody has received counts as lost.
_LOSS_PATIENCE = 3.0
_LONGEST = 65536
_LINE = 32
_RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33
_numbers = itertools.count(1)


def family_of(address: str) -> socket.AddressFamily:
    """The address family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _socket(namespace: Namespace, address: str, kind: socket.SocketKind) -> socket.socket:
    made = namespace.call(lambda: socket.socket(family_of(address), kind))
    made.settimeout(PATIENCE)
    if kind == socket.SOCK_DGRAM:
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    return made


class Talker:
    """A guest's TCP and UDP port, for one IP family, as sockets of this process."""

    def __init__(self, namespace: Namespace, address: str, port: int) -> None:
        self._listener = _socket(namespace, address, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((address, port))
        self._listener.listen(64)
        self.datagrams = _socket(namespace, address, socket.SOCK_DGRAM)
        self.datagrams.bind((address, port))

    def close(self) -> None:
        """Close the ports."""
        self._listener.close()
        self.datagrams.close()

    def accept(self, greeting: bytes) -> tuple[socket.socket, str]:
        """Return the connection whose client sends this greeting, and the client as seen here."""
        while True:
            connection, peer = self._listener.accept()
            connection.settimeout(PATIENCE)
            if _received(connection, len(greeting)) == greeting:
                return connection, peer[0]
            connection.close()  # of a test that failed before


class Connection:
    """A TCP connection to a guest's port."""

    def __init__(self, client: socket.socket, guest: socket.socket, seen: str) -> None:
        self.client = client
        self.guest = guest
        #: The client's address as the guest sees it.
        self.seen = seen

    def client_speaks(self) -> None:
        """Send a line from the client, and the guest's answer. Raises OSError."""
        _send(self.client, self.guest)
        _send(self.guest, self.client)

    def guest_speaks(self) -> None:
        """Send a line from the guest, and the client's answer. Raises OSError."""
        _send(self.guest, self.client)
        _send(self.client, self.guest)

    def close(self) -> None:
        """Close it in good order, the client first, so that the client's port is in TIME_WAIT."""
        self.client.shutdown(socket.SHUT_WR)
        assert self.guest.recv(1) == b""
        self.guest.close()
        assert self.client.recv(1) == b""
        self.client.close()

    def assert_clean(self) -> None:
        """Nothing that TCP itself would not prevent."""

    def abandon(self) -> None:
        """Close both ends, in any state."""
        self.client.close()
        self.guest.close()


def _send(sender: socket.socket, receiver: socket.socket) -> None:
    line = f"line {next(_numbers)}".ljust(_LINE).encode()
    sender.sendall(line)
    assert _received(receiver, len(line)) == line


def _received(connection: socket.socket, size: int) -> bytes:
    """Receive this many bytes, or fewer if the peer closes."""
    found = b""
    while len(found) < size and (part := connection.recv(size - len(found))):
        found += part
    return found


def connect(
    client: Namespace, address: str, port: int, talker: Talker, *, source_port: int = 0
) -> Connection:
    """Open a connection from a namespace. Raises OSError."""
    outer = _socket(client, address, socket.SOCK_STREAM)
    try:
        if source_port:
            outer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            outer.bind(("", source_port))
        outer.connect((address, port))
        greeting = f"greeting {next(_numbers)}".ljust(_LINE).encode()
        outer.sendall(greeting)
        return Connection(outer, *talker.accept(greeting))
    except BaseException:
        outer.close()
        raise


class Exchange:
    """Datagrams between a client's socket, which is not connected, and a guest's port.

    A socket that is not connected also receives what comes from a wrong address.
    """

    def __init__(self, client: Namespace, address: str, port: int, talker: Talker) -> None:
        self.client = _socket(client, address, socket.SOCK_DGRAM)
        self.client.bind(("", 0))
        self._entry = (address, port)
        self._entries = {self._entry}
        self.guest = talker.datagrams
        self._peer: tuple[str, int] | None = None
        self._name = f"exchange {next(_numbers)}"
        #: What the client has received: (number, source).
        self.heard: list[tuple[int, tuple[str, int]]] = []

    @property
    def seen(self) -> str:
        """The client's address as the guest sees it."""
        assert self._peer
        return self._peer[0]

    def enter_by(self, address: str) -> None:
        """Let the client go on at another node, from the same port."""
        self._entry = (address, self._entry[1])
        self._entries.add(self._entry)

    def client_speaks(self, *, losses: int = 0) -> None:
        """Send a datagram from the client, and the guest's answer; so many may be lost each way."""
        self._until_received(losses, self._send_from_client, self._receive_at_guest)
        self._until_received(losses, self.send_from_guest, self.receive_at_client)

    def guest_speaks(self, *, losses: int = 0) -> None:
        """Send a datagram from the guest, and the client's answer."""
        self._until_received(losses, self.send_from_guest, self.receive_at_client)
        self._until_received(losses, self._send_from_client, self._receive_at_guest)

    def _until_received(
        self, losses: int, send: Callable[[], int], receive: Callable[[int, float], bool]
    ) -> None:
        for _ in range(losses + 1):
            if receive(send(), _LOSS_PATIENCE if losses else PATIENCE):
                return
        raise TimeoutError(f"{losses + 1} datagrams are lost")

    def _text(self, number: int) -> bytes:
        return f"{self._name} {number}".encode()

    def _send_from_client(self) -> int:
        number = next(_numbers)
        self.client.sendto(self._text(number), self._entry)
        return number

    def _receive_at_guest(self, number: int, patience: float) -> bool:
        deadline = time.monotonic() + patience
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.guest.settimeout(left)
                text, peer = self.guest.recvfrom(_LONGEST)
                if text == self._text(number):
                    self._peer = peer[:2]
                    return True
        except TimeoutError:
            pass
        return False

    def send_from_guest(self) -> int:
        """Send a datagram from the guest to the client as it saw it last; its number."""
        assert self._peer, "the guest knows a client only when that has spoken"
        number = next(_numbers)
        self.guest.sendto(self._text(number), self._peer)
        return number

    def receive_at_client(self, number: int, patience: float = PATIENCE) -> bool:
        """Receive until a datagram of the guest with this number, or a later one, has come."""
        deadline = time.monotonic() + patience
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.client.settimeout(left)
                if self._hear() >= number:
                    return True
        except TimeoutError:
            pass
        return False

    def _hear(self) -> int:
        text, source = self.client.recvfrom(_LONGEST)
        name, _, number = text.decode().rpartition(" ")
        assert name == self._name
        self.heard.append((int(number), source[:2]))
        return int(number)

    def assert_clean(self) -> None:
        """Assert that the client has heard each datagram once, and all from nodes that it asked."""
        self.client.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._hear()
        numbers = [number for number, _ in self.heard]
        assert sorted(set(numbers)) == sorted(numbers), f"duplicates: {sorted(numbers)}"
        assert {source for _, source in self.heard} <= self._entries

    def abandon(self) -> None:
        """Close the client's end."""
        self.client.close()

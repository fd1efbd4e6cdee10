"""One connection to one etcd member: sockets, TLS and bounded HTTP. It does not know etcd's API.

Redirects are never followed and proxies never used: ``http.client`` does neither.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

from cgw_hooks.core.etcd.faults import NOT_ETCD, AnswerTooLong, Refusal
from cgw_hooks.errors import RegistryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import Endpoint, Registry

#: What asking a member raises; it may be of use to ask another one.
FAULTS = (OSError, HTTPException, Refusal, *NOT_ETCD)
#: Bytes that are read of one answer, at most.
_MOST_BYTES = 16 << 20
_CHUNK = 1 << 16
#: A dead path must end a connection within seconds; the kernel's own limit is two hours.
_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)


class Deadline:
    """Until when something must be done: ``seconds`` from now on."""

    def __init__(self, seconds: float, whole: Deadline | None = None) -> None:
        self._end = time.monotonic() + seconds
        #: The deadline of all tries, of which this is one.
        self.whole = whole or self

    def left(self) -> float:
        """Return the seconds that are left. Raises ``TimeoutError`` if none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def share(self, of: int) -> Deadline:
        """Return the deadline of the first of so many tries: it leaves time for the others."""
        return Deadline((self._end - time.monotonic()) / of, self)


class Connection:
    """An HTTP connection to one member, for one request after the other, the last one a watch.

    All methods raise ``OSError`` and ``HTTPException``.
    """

    def __init__(self, endpoint: Endpoint, config: Registry, deadline: Deadline) -> None:
        """Connect. Raises ``RegistryError``, too, for a file of the config."""
        self.endpoint = endpoint
        self._http = HTTPConnection(endpoint.host, endpoint.port)
        self._socket = self._http.sock = _connected(endpoint, config, deadline)

    def close(self) -> None:
        """Close it; closing twice does no harm."""
        self._http.close()

    def shut_down(self) -> None:
        """End it; the thread that uses it finds it ended."""
        with suppress(OSError):  # the member was faster
            # That of the TLS socket would also change what the other thread uses.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def is_usable(self) -> bool:
        """Whether another request can be sent: the member has neither closed it nor spoken."""
        if self._http.sock is None:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def ask(
        self, path: str, body: bytes | None, headers: dict[str, str], deadline: Deadline
    ) -> tuple[int, bytes]:
        """Send a POST, or without ``body`` a GET; return status and content of the answer.

        Raises ``AnswerTooLong``, too.
        """
        self._socket.settimeout(deadline.left())
        self._http.request("GET" if body is None else "POST", path, body, headers)
        content = bytearray()
        with self._http.getresponse() as response:
            while part := response.read1(_CHUNK):
                content += part
                if len(content) > _MOST_BYTES:
                    self.close()
                    most = f"its answer has over {_MOST_BYTES >> 20} MiB"
                    raise AnswerTooLong(str(self.endpoint), most, is_unknown=True)
                self._socket.settimeout(deadline.left())
        return response.status, bytes(content)

    def send(self, content: bytes, deadline: Deadline) -> None:
        """Send a whole request; ``receive`` gives the answer piece by piece.

        ``http.client`` could not read it: after a timeout its buffer is of no use any more.
        """
        self._socket.settimeout(deadline.left())
        self._socket.sendall(content)

    def receive(self, seconds: float) -> bytes:
        """Return what comes next; empty if nothing comes for so long."""
        self._socket.settimeout(seconds)
        try:
            part = self._socket.recv(_CHUNK)
        except TimeoutError as error:
            if error.errno:  # ETIMEDOUT: nothing acknowledges TCP's keepalive packets
                raise
            return b""
        if not part:
            raise ConnectionError("the member has ended the watch")
        return part


def _connected(endpoint: Endpoint, config: Registry, deadline: Deadline) -> socket.socket:
    """Return a socket. A name is resolved first, for which there is no deadline."""
    plain = socket.create_connection((endpoint.host, endpoint.port), deadline.left())
    try:
        for option in _OPTIONS:
            plain.setsockopt(*option)
        if not endpoint.is_tls:
            return plain
        plain.settimeout(deadline.left())
        return _tls_context(config).wrap_socket(plain, server_hostname=endpoint.host)
    except BaseException:
        plain.close()
        raise


def _tls_context(config: Registry) -> ssl.SSLContext:
    """Read the files for each connection: certificates are renewed while the agent runs."""
    path = config.ca
    try:
        context = ssl.create_default_context(cafile=path or None)
        if config.certificate:
            path = f"{config.certificate} with {config.key}"
            # An encrypted key fails. Without this argument OpenSSL would ask the terminal.
            context.load_cert_chain(config.certificate, config.key, password=lambda: "")
    except OSError as error:
        raise RegistryError(path, f"it cannot be used: {error}", "correct [registry]") from error
    return context

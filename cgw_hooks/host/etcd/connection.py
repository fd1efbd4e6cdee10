"""One connection to one etcd member: sockets, TLS and bounded HTTP. It does not know etcd's API.

Redirects are never followed and proxies never used: ``http.client`` does neither.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from http.client import HTTPConnection

from cgw_hooks.errors import RegistryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import Endpoint, Registry

#: Bytes that are read of one answer, at most.
MOST_BYTES = 16 << 20
#: A dead path must end a connection within seconds; the kernel's own limit is two hours.
_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
_CHUNK = 1 << 16


class AnswerTooLong(RegistryError):
    """The member sends more than ``MOST_BYTES``."""

    def __init__(self, endpoint: Endpoint) -> None:
        most = f"{MOST_BYTES >> 20} MiB"
        super().__init__(str(endpoint), f"its answer has over {most}", is_unknown=True)


class Connection:
    """An HTTP connection to one member, for one request after the other.

    ``end`` is the ``time.monotonic()`` of a deadline. All methods raise ``OSError``,
    ``HTTPException``, and ``RegistryError`` for a file of the config.
    """

    def __init__(self, endpoint: Endpoint, config: Registry, end: float) -> None:
        self.endpoint = endpoint
        self._socket = open_socket(endpoint, config, end)
        self._http = HTTPConnection(endpoint.host, endpoint.port)
        self._http.sock = self._socket

    def close(self) -> None:
        """Close it; closing twice does no harm."""
        self._http.close()

    def is_usable(self) -> bool:
        """Whether another request can be sent: the member has neither closed it nor spoken."""
        if self._http.sock is None:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def ask(
        self, path: str, body: bytes | None, headers: dict[str, str], end: float
    ) -> tuple[int, bytes]:
        """Send a POST, or without ``body`` a GET; return status and content of the answer.

        Raises ``AnswerTooLong``, too.
        """
        self._socket.settimeout(seconds_until(end))
        self._http.request("GET" if body is None else "POST", path, body, headers)
        content = bytearray()
        with self._http.getresponse() as response:
            while part := response.read1(_CHUNK):
                content += part
                if len(content) > MOST_BYTES:
                    self.close()
                    raise AnswerTooLong(self.endpoint)
                self._socket.settimeout(seconds_until(end))
        return response.status, bytes(content)


def open_socket(endpoint: Endpoint, config: Registry, end: float) -> socket.socket:
    """Connect. A name is resolved first, for which there is no deadline.

    Raises ``OSError``, and ``RegistryError`` for a file of the config.
    """
    plain = socket.create_connection((endpoint.host, endpoint.port), seconds_until(end))
    try:
        for option in _OPTIONS:
            plain.setsockopt(*option)
        if not endpoint.is_tls:
            return plain
        plain.settimeout(seconds_until(end))
        return _tls_context(config).wrap_socket(plain, server_hostname=endpoint.host)
    except BaseException:
        plain.close()
        raise


def _tls_context(config: Registry) -> ssl.SSLContext:
    """Read the files for each connection: certificates are renewed while the agent runs.

    Raises ``RegistryError``.
    """
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


def seconds_until(end: float) -> float:
    """Return the seconds that are left. Raises ``TimeoutError`` if none are."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left

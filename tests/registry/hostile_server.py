"""A server that is not etcd, or no longer: it answers requests with whatever a test wants."""

import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

ADDRESS, PORT = "127.0.0.1", 2379
Answer = Callable[[str], Iterable[bytes]]
"""What is sent for the path of a request; the connection then ends."""


def ok(content: bytes) -> bytes:
    """A complete answer with this content."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)


@contextmanager
def hostile_server(answer: Answer, port: int = PORT) -> Iterator[list[str]]:
    """Serve in the present namespace; the list has the paths that were asked for so far."""
    asked: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        timeout: ClassVar[float] = 60.0

        def handle(self) -> None:
            with suppress(OSError):
                path = self.rfile.readline().split()[1].decode()
                length = 0
                while header := self.rfile.readline().strip():
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                self.rfile.read(length)
                asked.append(path)
                for part in answer(path):
                    self.wfile.write(part)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server((ADDRESS, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()

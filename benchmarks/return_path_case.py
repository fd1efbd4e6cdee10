"""One return path in a process of its own, and what a client measures through it.

    client --- xenbr0 [node1] guestbr0 --- guestbr0 [node2] --- web2

The client comes in by node1, and the guest is on node2. Each case has a cluster of its own
(`tests/return_path/cluster.py`), and the names of a cluster's namespaces have the number of its
process. So several cases can take turns.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import struct
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cgw_hooks.core.node_config import FULL_NAT
from tests.lab import network
from tests.lab.flows import SENDERS, send_datagrams
from tests.netns.cluster import inside, uplink
from tests.return_path.cluster import (
    CHAIN,
    CLIENT,
    SILENT,
    TALK,
    Cluster,
    listening_port,
    open_cluster,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection

PLAIN = "plain routing"
_GUEST, _ENTRY = "web2", 1
_ASK, _BULK = TALK, SILENT
_ASKS, _ASKERS = 150, 4
_SECONDS = 0.25
_CHUNK = 1 << 20
#: Closing sends a reset: otherwise ports stay in TIME-WAIT, and the loop runs out of ports.
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_SYSCTLS = {
    # Closed connections must be forgotten before their source ports are used again.
    "net/netfilter/nf_conntrack_tcp_timeout_close": "1",
    "net/netfilter/nf_conntrack_udp_timeout": "3600",
    "net/netfilter/nf_conntrack_udp_timeout_stream": "3600",
}
_AT_ONCE = 1000  # datagrams that all buffers on the way can hold
_NO_ANSWER = 1.0  # seconds
_SO_RCVBUFFORCE = 33
_FORK = multiprocessing.get_context("fork")


class Figures(NamedTuple):
    """What one turn has measured."""

    asks: list[float]  # seconds, one per connect and ask
    connections: float  # per second, by several clients at once
    down: float  # Gbit/s
    up: float  # Gbit/s


class Case:
    """A case, as seen by the one who measures."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def turn(self, *, br_netfilter: bool) -> Figures:
        """Measure once."""
        return Figures(*self._do("turn", br_netfilter))

    def flows(self, count: int) -> int:
        """Open so many UDP flows to one guest port; how many of them have got an answer."""
        return int(self._do("flows", count))

    def _do(self, name: str, argument: object) -> Any:
        self._pipe.send((name, argument))
        found = self._pipe.recv()
        if isinstance(found, Exception):
            raise found
        return found


@contextmanager
def open_case(name: str) -> Iterator[Case]:
    """A case that is ready; `name` is a return path, or PLAIN."""
    ours, theirs = _FORK.Pipe()
    process = _FORK.Process(target=_serve_case, args=(name, theirs, ours))
    process.start()
    theirs.close()
    with ours:
        try:
            ours.recv()
            yield Case(ours)
        finally:
            ours.close()  # ends it
            process.join()


def _serve_case(name: str, pipe: Connection, other_end: Connection) -> None:
    other_end.close()
    with (
        tempfile.TemporaryDirectory(prefix="cgw-bench-") as folder,
        open_cluster(Path(folder), FULL_NAT if name == PLAIN else name, CHAIN) as made,
        _Client(made, is_plain=name == PLAIN) as client,
        suppress(EOFError, KeyboardInterrupt),
    ):
        pipe.send("ready")
        while True:
            wanted, argument = pipe.recv()
            try:
                pipe.send(getattr(client, wanted)(argument))
            except Exception as error:  # noqa: BLE001  (it is raised again where it is read)
                pipe.send(error)


class _Client:
    """The client of one cluster, with the servers of its guest."""

    def __init__(self, made: Cluster, *, is_plain: bool) -> None:
        self._made = made
        self._namespace = made.client.namespace
        entry = uplink(_ENTRY, 4)
        self._ask = entry, listening_port(_GUEST, _ASK)
        self._bulk = entry, listening_port(_GUEST, _BULK)
        for node in made.nodes.values():
            node.namespace.sysctl(_SYSCTLS)
            node.namespace.ip(f"route add {SENDERS} via {CLIENT[4]}\n")
        if is_plain:
            self._route_plainly()

    def _route_plainly(self) -> None:
        """Remove all rules. Routes lead the packets on the way that they have with FULL-NAT."""
        guest = self._made.guests[_GUEST]
        for node in self._made.nodes.values():
            node.namespace.run(["nft", "flush", "ruleset"])
        self._namespace.ip(f"route add {network.GUEST_SUBNET} via {uplink(_ENTRY, 4)}\n")
        guest.wire.namespace.ip(f"route add {CLIENT[4]} via {inside(_ENTRY, 4)}\n")
        self._ask, self._bulk = (guest.address(4), _ASK), (guest.address(4), _BULK)

    def __enter__(self) -> Self:
        address = self._made.guests[_GUEST].address(4)
        guest = self._made.guests[_GUEST].wire.namespace

        def listen(port: int) -> socket.socket:
            listener = guest.call(lambda: socket.create_server((address, port), backlog=256))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)  # inherited
            return listener

        datagrams = guest.call(lambda: socket.socket(type=socket.SOCK_DGRAM))
        datagrams.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)
        datagrams.bind((address, SILENT))
        asked, bulk = listen(_ASK), listen(_BULK)
        self._servers = [_fork(_answer, asked) for _ in range(_ASKERS)]
        self._servers += [_fork(_serve_bulk, bulk), _fork(_echo, datagrams)]
        for endpoint in (asked, bulk, datagrams):
            endpoint.close()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.kill()
            server.join()

    def turn(self, br_netfilter: bool) -> Figures:
        """Measure everything once."""
        self._made.pass_bridged_packets_to_rules(br_netfilter)
        return Figures(
            self._namespace.call(lambda: [_seconds_to_ask(self._ask) for _ in range(_ASKS)]),
            self._connections(),
            self._namespace.call(lambda: _receive(self._bulk)),
            self._namespace.call(lambda: _send(self._bulk)),
        )

    def _connections(self) -> float:
        rates: Any = _FORK.SimpleQueue()
        askers = self._namespace.call(  # a child is in the namespace of the thread that forks
            lambda: [_fork(_ask_on, self._ask, rates) for _ in range(_ASKERS)]
        )
        total = sum(rates.get() for _ in askers)
        for asker in askers:
            asker.join()
        return float(total)

    def flows(self, count: int) -> int:
        """Send a datagram of each flow, and count the answers."""
        self._made.pass_bridged_packets_to_rules(on=False)
        self._namespace.run(["nft", "-f", "-"], input=_count_answers(self._bulk[1]))

        def ports() -> Iterable[int]:
            for sent in range(count):
                if sent % _AT_ONCE == 0:
                    self._wait_for_answers(sent)
                yield self._bulk[1]

        send_datagrams(self._namespace, self._bulk[0], ports())
        self._wait_for_answers(count)
        return self._answers()

    def _wait_for_answers(self, wanted: int) -> None:
        found, since = self._answers(), time.monotonic()
        while found < wanted and time.monotonic() < since + _NO_ANSWER:
            time.sleep(0.01)
            now = self._answers()
            if now > found:
                found, since = now, time.monotonic()

    def _answers(self) -> int:
        listing = self._namespace.run(["nft", "list", "counter", "inet", "bench", "answers"]).stdout
        found = re.search(r"packets (\d+)", listing)
        return int(found[1]) if found else 0


def _count_answers(port: int) -> str:
    """The addresses that the datagrams have come from are nobody's."""
    return f"""table inet bench {{
        counter answers {{ }}
        chain prerouting {{ type filter hook prerouting priority raw;
            ip daddr {SENDERS} udp sport {port} counter name answers drop
        }}
    }}
    """


def _fork(function: Callable[..., None], *arguments: object) -> Any:
    process = _FORK.Process(target=function, args=arguments)
    process.start()
    return process


# -- the client ------------------------------------------------------------------------------------


def _seconds_to_ask(target: tuple[str, int]) -> float:
    with socket.socket() as endpoint:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        started = time.perf_counter()
        endpoint.connect(target)
        endpoint.send(b"?")
        endpoint.recv(1)
        return time.perf_counter() - started


def _ask_on(target: tuple[str, int], rates: Any) -> None:
    started, made = time.perf_counter(), 0
    while time.perf_counter() < started + _SECONDS:
        _seconds_to_ask(target)
        made += 1
    rates.put(made / (time.perf_counter() - started))


def _receive(target: tuple[str, int]) -> float:
    buffer, received = bytearray(_CHUNK), 0
    with socket.create_connection(target) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        started = time.perf_counter()
        connection.send(b"d")
        while time.perf_counter() < started + _SECONDS:
            received += connection.recv_into(buffer)
        return received * 8 / 1e9 / (time.perf_counter() - started)


def _send(target: tuple[str, int]) -> float:
    with socket.create_connection(target) as connection:
        started = time.perf_counter()
        connection.send(b"u")
        sent = _send_chunks(connection, started + _SECONDS)
        connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            connection.recv(1)  # until the guest has taken all of it
        return sent * 8 / 1e9 / (time.perf_counter() - started)


def _send_chunks(connection: socket.socket, end: float = float("inf")) -> int:
    chunk, sent = os.memfd_create("chunk"), 0
    try:
        os.truncate(chunk, _CHUNK)
        while time.perf_counter() < end:
            sent += os.sendfile(connection.fileno(), chunk, 0, _CHUNK)
    finally:
        os.close(chunk)
    return sent


# -- the guest -------------------------------------------------------------------------------------


def _answer(listener: socket.socket) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: for the one who measures
    while True:
        with listener.accept()[0] as connection, suppress(OSError):
            connection.send(connection.recv(1))
            connection.recv(1)


def _serve_bulk(listener: socket.socket) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    buffer = bytearray(_CHUNK)
    while True:
        with listener.accept()[0] as connection, suppress(OSError):
            if connection.recv(1) == b"d":
                _send_chunks(connection)
            while connection.recv_into(buffer):
                pass


def _echo(endpoint: socket.socket) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        payload, peer = endpoint.recvfrom(64)
        endpoint.sendto(payload, peer)

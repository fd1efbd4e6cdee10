"""Traffic that runs while something else happens, and its results.

There are three streams through each entry, each of them every 20 ms: exchanges over one TCP
session, UDP exchanges from one source port, and new TCP connections.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Event

from tests.lab.client import Client
from tests.lab.namespace import Namespace

INTERVAL = 0.02
PATIENCE = 300.0
"""Seconds. Within it, the kernel sends a SYN or a segment ten times, the last time after 204 s."""
MOST_AT_ONCE = 10
"""New connections under way through one entry: the guest's backlog is 64, and an emulated guest on
a busy machine answers fewer than come every 20 ms."""


@dataclass
class Stream:
    """The results of one kind of traffic through one entry."""

    kind: str
    entry: str
    expected: str
    """How each answer begins."""
    answers: list[float] = field(default_factory=list)
    """When each answer came."""
    failures: list[str] = field(default_factory=list)
    ended: float = 0.0
    """When the traffic ended; 0 while it goes on."""

    @property
    def longest_gap(self) -> float:
        """The longest time without an answer, in seconds.

        A gap that is still open at the end counts: a stream that died is silent until then.
        """
        is_open = self.answers and self.answers[-1] < self.ended
        moments = [*self.answers, self.ended] if is_open else self.answers
        return max((after - before for before, after in pairwise(moments)), default=0.0)

    def note(self, answer: bytes) -> None:
        """Record an answer."""
        if answer.startswith(self.expected.encode()):
            self.answers.append(time.monotonic())
        else:
            self.failures.append(f"answered {answer!r}")


@dataclass(frozen=True)
class Ports:
    """The listening ports of a guest's echo, TCP and UDP services."""

    session: int
    connection: int
    datagram: int


@contextmanager
def traffic(
    namespace: Namespace, entries: Mapping[str, str], ports: Ports, guest: str
) -> Iterator[list[Stream]]:
    """Traffic from `namespace` to the guest within the block.

    `entries` are the addresses that it is sent to, and as whom the guest must see it. The streams
    start when the guest answers at every entry; the block begins when every stream has had an
    answer, and ends when none is under way, or at once if the block raises an exception. Raises
    TimeoutError when there is no answer.
    """
    for entry in entries:
        _wait_for_guest(Client(namespace), entry, ports)
    streams, work = [], []
    over, broken_off = Event(), Event()
    for entry, seen_as in entries.items():
        for kind, (port, expected, run) in {
            "TCP session": (ports.session, "still there?", _session),
            "UDP exchange": (ports.datagram, f"{guest} udp {seen_as}:", _datagrams),
            "new TCP connections": (ports.connection, f"{guest} tcp {seen_as}:", _connections),
        }.items():
            stream = Stream(kind, entry, expected)
            streams.append(stream)
            work.append(run(stream, port, over.is_set))
    with ThreadPoolExecutor(max_workers=1) as executor:
        running = executor.submit(
            namespace.call, lambda: asyncio.run(_all(work, broken_off.is_set))
        )
        try:
            wait_for_answers(streams)
            yield streams
        except BaseException:
            broken_off.set()
            raise
        finally:
            for stream in streams:
                stream.ended = time.monotonic()
            over.set()
            running.result()


def wait_for_answers(
    streams: Sequence[Stream], is_hopeless: Callable[[], bool] = lambda: False
) -> None:
    """Wait until each stream has an answer that came after this call.

    Raises TimeoutError, with the stream that has none, after `PATIENCE`, or if it is hopeless.
    """
    began = time.monotonic()
    while silent := [s for s in streams if not s.answers or s.answers[-1] < began]:
        if time.monotonic() > began + PATIENCE or is_hopeless():
            first = silent[0]
            why = f": {first.failures[-1]}" if first.failures else ""
            raise TimeoutError(f"{first.kind} through {first.entry}: no answer{why}")
        time.sleep(INTERVAL)


def _wait_for_guest(client: Client, entry: str, ports: Ports) -> None:
    """Wait until all three services answer there: a guest that boots starts them one by one."""
    for protocol, port in (("tcp", ports.connection), ("udp", ports.datagram)):
        reply = client.until_answered(protocol, entry, port, within=PATIENCE)
        if not reply.answered:
            raise TimeoutError(f"{protocol} {entry}:{port}: {reply.outcome.value}")
    deadline = time.monotonic() + PATIENCE
    while not _echoes(client, entry, ports.session):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{entry}:{ports.session}: no session")
        time.sleep(INTERVAL)


def _echoes(client: Client, entry: str, port: int) -> bool:
    try:
        with client.tcp_session(entry, port) as session:
            return session.exchange("hello") == "hello"
    except OSError:
        return False


async def _all(
    work: Sequence[Coroutine[None, None, None]], is_broken_off: Callable[[], bool]
) -> None:
    running = asyncio.gather(*work)
    while not running.done() and not is_broken_off():
        await asyncio.wait([running], timeout=INTERVAL)
    if not running.done():
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    else:
        await running


async def _session(stream: Stream, port: int, is_over: Callable[[], bool]) -> None:
    try:
        reader, writer = await asyncio.open_connection(stream.entry, port)
        while not is_over():
            writer.write(stream.expected.encode())
            async with asyncio.timeout(PATIENCE):
                stream.note(await reader.readexactly(len(stream.expected)))
            await asyncio.sleep(INTERVAL)
        writer.close()
    except (OSError, EOFError) as error:
        stream.failures.append(f"{type(error).__name__}: {error}")


async def _connections(stream: Stream, port: int, is_over: Callable[[], bool]) -> None:
    under_way: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as connections:
        while not is_over():
            if len(under_way) < MOST_AT_ONCE:
                task = connections.create_task(_connect(stream, port))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.sleep(INTERVAL)


async def _connect(stream: Stream, port: int) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(stream.entry, port)
            stream.note(await reader.read())
            writer.close()
    except OSError as error:
        stream.failures.append(f"{type(error).__name__}: {error}")


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def datagram_received(self, data: bytes, _peer: tuple[str, int]) -> None:
        self._stream.note(data)

    def error_received(self, error: Exception) -> None:
        self._stream.failures.append(f"{type(error).__name__}: {error}")


async def _datagrams(stream: Stream, port: int, is_over: Callable[[], bool]) -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagrams(stream), remote_addr=(stream.entry, port)
    )
    while not is_over():
        transport.sendto(b"hello")
        await asyncio.sleep(INTERVAL)
    transport.close()

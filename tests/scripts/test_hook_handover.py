"""What the agent's hook server and its client say to each other while many calls wait."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cgw_hooks.agent.hook_server import STILL_WAITING, HookServer
from cgw_hooks.node.hook_answer import Answer, HookCall

pytestmark = pytest.mark.scripts

CLIENT = str(Path(__file__).parents[2] / "cgw_hooks/agent/client.pl")
NOT_SERVED = 75
#: Seconds of silence after which a client gives up.
DEADLINE = 1.0
CALL = ["qemu", "web1", "start", "begin", "-"]  # an operation at which nothing is to be done
_BODY = "".join(f"{word}\0" for word in CALL).encode() + b"<domain/>"
REQUEST = len(_BODY).to_bytes(4, "big") + _BODY
SERVED = b"\0"
#: Starts a server of one call that does this with its connection; returns its path.
Serving = Callable[[Callable[[socket.socket], object]], str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def server(folder: Path) -> Iterator[HookServer]:
    made = HookServer(str(folder))
    yield made
    made.close()


def slow(_call: HookCall) -> Answer:
    """A call that takes longer than the pause between two messages to those that wait."""
    time.sleep(0.3)
    return Answer()


def received(connection: socket.socket) -> bytes:
    """All that the server has sent, once it has closed the connection."""
    return b"".join(iter(lambda: connection.recv(100), b""))


def test_calls_are_served_in_order_and_those_that_wait_are_told_so(
    server: HookServer, folder: Path
) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
        for connection in clients:
            connection.connect(str(folder / "agent.sock"))
            connection.sendall(REQUEST)
        for number, connection in enumerate(clients):
            assert server.serve_one(slow)
            assert received(connection) == STILL_WAITING * (number + 1) + SERVED
            assert server.has_calls == (number < 2)


def test_a_client_that_ended_while_it_waited_does_not_keep_the_others_from_being_served(
    server: HookServer, folder: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as last:
        for connection in (first, socket.socket(socket.AF_UNIX), last):
            connection.connect(str(folder / "agent.sock"))
            connection.sendall(REQUEST)
        for _ in range(3):
            assert server.serve_one(slow)
        assert received(last).endswith(SERVED)
        assert not server.has_calls


@pytest.fixture
def served_by(tmp_path: Path) -> Iterator[Serving]:
    """Makes a server of one call that behaves as the test says; returns its path."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "agent.sock"))
        listening.listen()
        threads = []

        def make(behave: Callable[[socket.socket], object]) -> str:
            def serve() -> None:
                with listening.accept()[0] as connection:
                    behave(connection)

            threads.append(threading.Thread(target=serve))
            threads[-1].start()
            return str(tmp_path / "agent.sock")

        yield make
        for thread in threads:
            thread.join()


def hand_over(path: str) -> int:
    command = ["/usr/bin/perl", CLIENT, path, *CALL]
    return subprocess.run(command, input=b"<domain/>", check=False).returncode


def test_perl_has_nothing_to_say_against_the_client() -> None:
    command = ["/usr/bin/perl", "-Mstrict", "-Mwarnings", "-c", CLIENT]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == f"{CLIENT} syntax OK\n"


def test_a_definition_arrives_whole_and_the_line_of_a_refusal_too(
    served_by: Serving,
) -> None:
    words = ["qemu", "wéb\n1", "prepare", "begin", "-"]
    given = bytes(range(256)) * 20_000  # more than a socket holds
    heard = []

    def read_all(connection: socket.socket) -> None:
        length = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
        heard.append(connection.recv(length, socket.MSG_WAITALL))
        connection.sendall(b"\x03" + "wéb: refused".encode())

    command = ["/usr/bin/perl", CLIENT, served_by(read_all), *words]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr == "wéb: refused\n".encode()
    assert heard == ["".join(f"{word}\0" for word in words).encode() + given]


def test_a_client_gives_up_without_an_agent_and_without_an_answer(
    tmp_path: Path, served_by: Serving
) -> None:
    assert hand_over(str(tmp_path / "nothing")) == NOT_SERVED
    assert hand_over(str(tmp_path)) == NOT_SERVED
    assert hand_over(served_by(lambda connection: connection.recv(1))) == NOT_SERVED


def test_a_call_is_not_handed_to_another_users_socket(served_by: Serving) -> None:
    """It could say that the ports of a stopped guest are closed."""

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)  # to close with unread input would be an error for the client
        connection.sendall(SERVED)

    path = served_by(serve)
    os.chown(path, 65534, 65534)
    assert hand_over(path) == NOT_SERVED
    os.chown(path, 0, 0)
    assert hand_over(path) == 0


def test_a_client_waits_as_long_as_the_agent_says_that_it_goes_on(
    served_by: Serving,
) -> None:
    def busy(connection: socket.socket) -> None:
        for _ in range(3):
            connection.sendall(STILL_WAITING)
            time.sleep(DEADLINE / 2)
        connection.sendall(STILL_WAITING + bytes([4]) + b"why")

    assert hand_over(served_by(busy)) == 4


def test_a_client_gives_up_when_the_agent_falls_silent(
    served_by: Serving,
) -> None:
    """The server waits until its client has ended, so only the client can end first."""

    def hung(connection: socket.socket) -> None:
        connection.sendall(STILL_WAITING)
        connection.settimeout(120)
        while connection.recv(1 << 16):
            pass

    assert hand_over(served_by(hung)) == NOT_SERVED

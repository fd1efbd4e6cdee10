"""Hook calls that are handed to the agent, and what happens when it does not serve them."""

import os
import random
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.full import is_full
from tests.libvirt.waiting import eventually
from tests.netns.agent import Agent, refuse_to_work, running_agent, trace, use_installed_hook
from tests.netns.asker import REFUSED, Asker, spoken
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import CLIENT, NODE
from tests.netns.guest import DONE, Guest
from tests.netns.node import Node

pytestmark = pytest.mark.netns

NODE4 = NODE[4]
ANSWER = f"web1 saw {CLIENT[4]}"
#: Seconds that a hook may take if the agent is stopped: its own deadline, then that of the lock,
#: and much more for a busy machine.
GENEROUS = 30.0


@pytest.fixture
def web1(node: Node) -> Guest:
    return node.guest("web1", "2202:22", serves="22/tcp")


def socket_of(node: Node) -> str:
    return str(node.runtime / "agent.sock")


def test_the_agent_serves_a_guest_from_prepare_to_release(
    client: Asker, node: Node, web1: Guest
) -> None:
    with running_agent(node):
        refuse_to_work(node)
        for operation, answer in (
            ("prepare", REFUSED),
            ("start", REFUSED),
            ("started", "web1"),
            ("reconnect", "web1"),
            ("stopped", REFUSED),
        ):
            assert web1.hook(operation) == DONE
            assert client.asks(NODE4, 2202).split()[0] == answer
        assert web1.hook("release", "shutdown") == DONE
        assert node.files() == {}
        assert not trace(node).exists()
    use_installed_hook(node)


def test_a_refusal_by_the_agent_reads_like_one_without_it(node: Node, web1: Guest) -> None:
    rival = node.guest("web2", "2202:22")
    invalid = node.guest("web3", "0:22")
    use_installed_hook(node)
    assert web1.hook("prepare") == DONE
    alone = [rival.hook("prepare"), invalid.hook("prepare")]
    with running_agent(node):
        refuse_to_work(node)
        served = [rival.hook("prepare"), invalid.hook("prepare")]
        assert not trace(node).exists()
    assert alone == served
    assert [4, 3] == [finished.exit_code for finished in served]
    assert 'port *:2202/tcp is published by guest "web1"' in served[0].complaint
    use_installed_hook(node)


def test_udp_flows_end_although_the_answer_comes_first(client: Asker, node: Node) -> None:
    web1 = node.guest("web1", "5353:53/udp", serves="53/udp")
    with running_agent(node):
        web1.start()
        with client.udp_sender(NODE4, 5353) as sender:
            assert ANSWER == spoken(sender.exchange("before"))
            web1.stop()
            assert eventually(lambda: not sender.exchange("after", timeout=0.3).answered)


@pytest.mark.parametrize("what", ["nothing", "a dead socket", "a file"])
def test_without_an_agent_the_hook_does_it_itself(
    client: Asker, node: Node, web1: Guest, what: str
) -> None:
    use_installed_hook(node)
    node.runtime.mkdir(mode=0o700)
    if what == "a dead socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(socket_of(node))
    elif what == "a file":
        (node.runtime / "agent.sock").touch()
    web1.start()
    assert client.asks(NODE4, 2202) == ANSWER
    web1.stop()
    (node.runtime / "agent.sock").unlink(missing_ok=True)


def test_the_hook_works_after_the_agent_was_killed(client: Asker, node: Node, web1: Guest) -> None:
    with running_agent(node) as agent:
        assert web1.hook("prepare") == DONE
        agent.signal(signal.SIGKILL)
        agent.wait()
        assert os.path.exists(socket_of(node))
        assert web1.hook("started") == DONE
        assert client.asks(NODE4, 2202) == ANSWER
    os.unlink(socket_of(node))


def test_a_stopped_agent_neither_delays_a_guest_for_long_nor_acts_later(
    client: Asker, node: Node, web1: Guest
) -> None:
    with running_agent(node) as agent:
        agent.signal(signal.SIGSTOP)
        begun = time.monotonic()
        web1.start()
        assert client.asks(NODE4, 2202) == ANSWER
        web1.stop()
        assert time.monotonic() - begun < GENEROUS
        agent.signal(signal.SIGCONT)
        # It takes up the calls that were given up, in order; a new one comes after them.
        refuse_to_work(node)
        other = node.guest("web2", "2203:22")
        assert eventually(lambda: other.hook("prepare") == DONE and other.key in node.records())
        assert REFUSED == client.asks(NODE4, 2202)
        assert [other.key] == list(node.records())
        use_installed_hook(node)


def test_sigterm_ends_the_agent_and_leaves_the_ports(
    client: Asker, node: Node, web1: Guest
) -> None:
    with running_agent(node) as agent:
        web1.start()
        agent.signal(signal.SIGTERM)
        assert 0 == agent.wait()
        assert not os.path.exists(socket_of(node))
        assert client.asks(NODE4, 2202) == ANSWER
        web1.stop()
        assert client.asks(NODE4, 2202) == REFUSED


def test_a_second_agent_does_not_take_the_socket(node: Node, web1: Guest) -> None:
    with running_agent(node):
        second = node.cgw("agent", check=False)
        assert 6 == second.returncode
        assert "another agent serves hook calls here" in second.stderr
        refuse_to_work(node)
        assert web1.hook("prepare") == DONE
        assert not trace(node).exists()
        assert web1.hook("release") == DONE


def test_an_agent_whose_folder_was_removed_ends_so_that_it_is_started_again(node: Node) -> None:
    with running_agent(node) as agent:
        shutil.rmtree(node.runtime)
        assert 1 == agent.wait()
    with running_agent(node):
        assert os.path.exists(socket_of(node))


@pytest.mark.parametrize(
    "message",
    [
        b"", b"\0", b"\0\0\0\x05abc", b"\xff\xff\xff\xff" + b"x" * 100, b"\0\0\0\x03abc",
        b"\0\0\0\x0aa\0b\0c\0d\0e\0", b"\0\0\0\x0f" + b"nodriver\0" * 5,
    ],
)  # fmt: skip
def test_a_request_that_is_none_leaves_the_agent_serving(
    node: Node, web1: Guest, message: bytes
) -> None:
    with running_agent(node):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(socket_of(node))
            client.sendall(message)
        refuse_to_work(node)
        assert web1.hook("prepare") == DONE
        assert not trace(node).exists()
        assert web1.hook("release") == DONE


def test_kill_9_at_any_moment_loses_and_doubles_nothing(
    node: Node, record_property: Callable[[str, object], None]
) -> None:
    """Guests start and stop in parallel, while the agent is killed and started again."""
    use_installed_hook(node)
    guests = [node.guest(f"web{n}", f"{2200 + n}:22") for n in range(1, 5)]
    longest = [0.0]
    over = threading.Event()

    def storm(guest: Guest) -> None:
        while not over.is_set():
            for operation in ("prepare", "started", "stopped", "release"):
                begun = time.monotonic()
                assert guest.hook(operation) == DONE
                longest[0] = max(longest[0], time.monotonic() - begun)

    with ThreadPoolExecutor() as pool:
        storms = [pool.submit(storm, guest) for guest in guests]
        try:
            for number in range(500 if is_full() else 16):
                if any(s.done() for s in storms):
                    break
                agent = Agent(node)
                if number % 2:
                    agent.wait_until_told("READY=1")
                time.sleep(random.uniform(0.0, 0.5))  # noqa: S311
                agent.close()
        finally:
            over.set()
        for finished in storms:
            finished.result()
    with suppress(FileNotFoundError):
        os.unlink(socket_of(node))
    assert node.records() == {}
    for guest in guests:
        guest.start()
    assert_as_recorded(node)
    record_property("longest hook call in seconds", longest[0])

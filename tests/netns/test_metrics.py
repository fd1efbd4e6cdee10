"""What the agent tells Prometheus, and what those who ask can do to it."""

import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.netns.agent import Agent, running_agent
from tests.netns.asker import Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import NODE
from tests.netns.conftest import NodeMaker
from tests.netns.node import CHECKOUT, PYTHON, Node

pytestmark = pytest.mark.netns

PORT = 9718
LISTEN = f'[metrics]\nlisten = "127.0.0.1:{PORT}"\n'
WEB1 = "web1 saw 192.168.122.100"
#: Seconds; more than a page is kept.
LONGEST_WAIT = 90

MAIN = "from cgw_hooks.commands.cli import main; sys.exit(main())"

Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


def connect(node: Node, path: str = "") -> socket.socket:
    """A connection to the place where the agent answers."""

    def made() -> socket.socket:
        if path:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.settimeout(LONGEST_WAIT)
            client.connect(path)
            return client
        return socket.create_connection(("127.0.0.1", PORT), timeout=LONGEST_WAIT)

    return node.namespace.call(made)


def ask(node: Node, request: bytes = b"GET /metrics HTTP/1.1\r\n\r\n", path: str = "") -> str:
    """Send a request; return all that comes back."""
    with connect(node, path) as client:
        client.sendall(request)
        parts = []
        while part := client.recv(1 << 16):
            parts.append(part)
    return b"".join(parts).decode()


def numbers(page: str) -> Numbers:
    """The samples of a page, which must be in the format of Prometheus."""
    head, _, body = page.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n"), head
    assert f"Content-Length: {len(body.encode())}" in head
    return samples(body)


def samples(text: str) -> Numbers:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


def value(found: Numbers, name: str, **labels: str) -> float | None:
    """The sum of the samples with these labels; None if there is none."""
    of_name = [
        number for (known, has), number in found.items()
        if known == name and labels.items() <= dict(has).items()
    ]  # fmt: skip
    return sum(of_name) if of_name else None


def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + LONGEST_WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def answers(node: Node) -> bool:
    """Whether the agent listens; it does so a moment after it is ready."""
    try:
        connect(node).close()
    except ConnectionRefusedError:
        return False
    return True


@contextmanager
def measured(node: Node) -> Iterator[Agent]:
    """A running agent that answers scrapes."""
    with running_agent(node) as agent:
        until(lambda: answers(node))
        yield agent


def test_the_numbers_are_those_of_status(make_node: NodeMaker, client: Asker) -> None:
    node = make_node(LISTEN)
    web1 = node.guest("web1", "2202:22", "5300-5309:53/udp", serves="22/tcp")
    node.guest("web2", "2203:22").start()
    with measured(node):
        web1.start()
        for _ in range(3):
            assert client.asks(NODE[4], 2202) == WEB1
        node.nft("flush map inet cgw published4\n")  # the agent repairs it
        until(lambda: value(numbers(ask(node)), "cgw_repairs_total") == 1)
        assert client.asks(NODE[4], 2202) == WEB1
        of_port = {"guest": "web1", "driver": "qemu", "port": "*:2202/tcp"}
        until(lambda: value(numbers(ask(node)), "cgw_port_connections_total", **of_port) == 1)
        found = numbers(ask(node))
        assert value(found, "cgw_published_ports", state="published") == 3
        assert value(found, "cgw_guests", driver="qemu") == 2
        assert value(found, "cgw_problems") is None
        assert value(found, "cgw_node_readable") == 1
        assert value(found, "cgw_port_open_connections", **of_port) == 0
        assert value(found, "cgw_port_connections_total", port="*:5300-5309/udp") == 0
        for operation in ("prepare", "started"):
            served = {"operation": operation, "served_by": "agent"}
            assert value(found, "cgw_hook_duration_seconds_count", **served) == 1
        within = {"operation": "started", "served_by": "agent", "le": "+Inf"}
        assert value(found, "cgw_hook_duration_seconds_bucket", **within) == 1
        assert (value(found, "cgw_hook_duration_seconds_sum", operation="started") or 0) > 0
        assert (value(found, "cgw_reconciliations_total") or 0) >= 2
        assert (value(found, "process_resident_memory_bytes") or 0) > 1e6
        web1.stop()
        until(lambda: value(numbers(ask(node)), "cgw_guests") == 1)
        assert value(numbers(ask(node)), "cgw_port_open_connections", guest="web1") is None


def test_what_hooks_did_without_the_agent_is_told_when_it_is_there(make_node: NodeMaker) -> None:
    node = make_node(LISTEN)
    web1 = node.guest("web1", "2202:22")
    web1.start()
    assert stat.S_IMODE((node.runtime / "calls").stat().st_mode) == 0o600
    with (node.runtime / "calls").open("a") as file:
        file.write("killed\nin the mid")
    with measured(node):
        found = numbers(ask(node))
        for operation in ("prepare", "started"):
            served = {"operation": operation, "served_by": "call"}
            assert value(found, "cgw_hook_duration_seconds_count", **served) == 1
            assert (value(found, "cgw_hook_duration_seconds_sum", **served) or 0) > 0
        assert value(found, "cgw_hook_duration_seconds_count") == 2
        assert not (node.runtime / "calls").exists()


def test_without_metrics_a_hook_leaves_no_trace_of_its_time(node: Node) -> None:
    node.guest("web1", "2202:22").start()
    assert not (node.runtime / "calls").exists()


def test_a_file_that_nobody_takes_does_not_grow_for_ever(make_node: NodeMaker) -> None:
    node = make_node(LISTEN)
    node.guest("web1", "2202:22").start()
    (node.runtime / "calls").write_bytes(b"x" * (1 << 16))
    node.guest("web2", "2203:22").start()
    assert (node.runtime / "calls").stat().st_size == 1 << 16


def test_a_problem_is_a_number(make_node: NodeMaker) -> None:
    node = make_node(LISTEN)
    node.guest("web1", "2202:22").start()
    with measured(node):
        node.serve(NODE[4], "2202/tcp")
        until(lambda: value(numbers(ask(node)), "cgw_problems", code="port-conflict") == 1)
        assert value(numbers(ask(node)), "cgw_published_ports", state="withheld") == 1
        assert value(numbers(ask(node)), "cgw_published_ports", state="published") is None


def test_without_a_config_nothing_listens(node: Node) -> None:
    with running_agent(node):
        assert node.namespace.run(["ss", "-Hltn"]).stdout == ""


def test_ports_have_no_numbers_of_their_own_if_the_config_says_so(make_node: NodeMaker) -> None:
    node = make_node(LISTEN + "per-port = false\n")
    node.guest("web1", "2202:22").start()
    with measured(node):
        found = numbers(ask(node))
        assert value(found, "cgw_published_ports", state="published") == 1
        assert not [name for name, _ in found if name.startswith("cgw_port_")]


def test_a_reload_moves_and_ends_the_export(make_node: NodeMaker) -> None:
    node = make_node()
    file = node.folder / "cgw.prom"
    with running_agent(node) as agent:
        node.configure(LISTEN + f'textfile = "{file}"\n')
        agent.signal(signal.SIGHUP)
        until(lambda: answers(node) and file.exists())
        node.configure("")
        agent.signal(signal.SIGHUP)
        until(lambda: not answers(node) and not file.exists())


def test_the_file_is_whole_for_all_to_read_and_goes_with_the_agent(make_node: NodeMaker) -> None:
    place = "textfile"
    node = make_node()
    folder = node.folder / place
    folder.mkdir(mode=0o755)
    file = folder / "cgw.prom"
    (folder / ".cgw.prom.new").write_text("left by an agent that was killed")
    node.configure(f'[metrics]\ntextfile = "{file}"\n')
    node.guest("web1", "2202:22").start()
    with running_agent(node) as agent:
        until(file.exists)
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        found = samples(file.read_text())
        assert value(found, "cgw_published_ports", state="published") == 1
        assert [path.name for path in folder.iterdir()] == ["cgw.prom"]
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        assert [*folder.iterdir()] == []


def test_a_unix_socket_is_for_the_group_of_its_folder(make_node: NodeMaker) -> None:
    node = make_node()
    folder = node.folder / "socket"
    folder.mkdir()
    os.chown(folder, 0, 65534)
    folder.chmod(0o2750)
    path = folder / "cgw"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))  # an agent that was killed has left it
    left.close()
    node.configure(f'[metrics]\nlisten = "{path}"\n')
    with running_agent(node) as agent:
        until(lambda: stat.S_IMODE(path.stat().st_mode) == 0o660)
        assert (path.stat().st_uid, path.stat().st_gid) == (0, 65534)
        assert value(numbers(ask(node, path=str(path))), "cgw_node_readable") == 1
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        assert not path.exists()


@pytest.mark.parametrize("key", ["textfile", "listen"])
def test_a_folder_that_others_can_write_to_is_refused(make_node: NodeMaker, key: str) -> None:
    node = make_node()
    folder = node.folder / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    target = node.folder / "target"
    target.write_text("precious")
    (folder / "cgw.prom").symlink_to(target)
    node.configure(f'[metrics]\n{key} = "{folder / "cgw.prom"}"\n')
    with running_agent(node) as agent:
        assert agent.process.stderr
        line = agent.process.stderr.readline()
        assert "agent: metrics: " in line
        assert "others than root can write to the folder" in line
    assert target.read_text() == "precious"


def test_a_place_that_is_taken_is_said_once_and_used_when_free(make_node: NodeMaker) -> None:
    node = make_node(LISTEN)
    taken = node.namespace.call(lambda: socket.create_server(("127.0.0.1", PORT)))
    with running_agent(node) as agent:
        assert agent.process.stderr
        line = agent.process.stderr.readline()
        assert f"127.0.0.1:{PORT}: it cannot listen: Address already in use" in line
        taken.close()
        until(lambda: answers(node) and "cgw_node_readable 1.0" in ask(node))


def test_a_missing_library_is_said_with_its_cure(make_node: NodeMaker) -> None:
    node = make_node(LISTEN)
    without = "import sys; sys.path.insert(0, sys.argv[1]); sys.modules['prometheus_client'] = None"
    program = f"{without}; sys.argv[1:] = sys.argv[2:]; {MAIN}"
    agent = subprocess.Popen(
        [*node.namespace.enter_command(), str(PYTHON), "-I", "-c", program, str(CHECKOUT), "agent"],
        env=node.environment() | {"CGW_ERRORS_TO_STDERR": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert agent.stderr
        line = agent.stderr.readline()
        assert "the library prometheus_client is missing" in line
        assert "apt install python3-prometheus-client" in line
        node.guest("web1", "2202:22").start()  # the agent goes on
        assert agent.poll() is None
    finally:
        agent.kill()
        agent.wait()
        agent.stderr.close() if agent.stderr else None
    check = subprocess.run(
        [*node.namespace.enter_command(), str(PYTHON), "-I", "-c", program, str(CHECKOUT), "check"],
        env=node.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert check.returncode == 5
    assert "apt install python3-prometheus-client" in check.stderr
    assert node.cgw("check").returncode == 0


HOSTILE = {
    "another path": (b"GET /etc/passwd HTTP/1.1\r\n\r\n", "404 Not Found"),
    "another method": (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "405 "),
    "no request": (b"\r\n\r\n", "405 "),
    "bytes": (bytes(range(128, 256)) + b"\n\n", "405 "),
    "no version": (b"GET /metrics\n\n", "200 OK"),
    "head": (b"HEAD /metrics HTTP/1.1\r\n\r\n", "200 OK"),
    "query": (b"GET /metrics?name[]=x HTTP/1.1\r\n\r\n", "200 OK"),
}


@pytest.fixture
def scraped(make_node: NodeMaker) -> Iterator[Node]:
    """A node whose agent answers scrapes."""
    node = make_node(LISTEN)
    with measured(node):
        yield node


def test_strange_requests_are_answered_or_dropped(scraped: Node) -> None:
    for request, status in HOSTILE.values():
        assert ask(scraped, request).startswith(f"HTTP/1.1 {status}"), request
    assert "\r\n\r\n" in ask(scraped, HOSTILE["head"][0])
    assert ask(scraped, HOSTILE["head"][0]).endswith("\r\n\r\n")
    with connect(scraped) as client:  # a head without an end
        try:
            for _ in range(1000):
                client.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 1000)
            ended = client.recv(1) == b""
        except ConnectionError:
            ended = True
        assert ended
    assert "200 OK" in ask(scraped)


def test_clients_that_say_nothing_keep_neither_scrapes_nor_hooks_out(scraped: Node) -> None:
    with ExitStack() as until_end:
        silent = [until_end.enter_context(connect(scraped)) for _ in range(200)]
        for client in silent[::2]:
            try:
                client.sendall(b"GET /met")
            except ConnectionError:  # it was dropped for the sake of later ones
                continue
        assert "200 OK" in ask(scraped)
        scraped.guest("web1", "2202:22").start()
        assert_as_recorded(scraped)
        for client in silent:  # each of them is dropped at last
            try:
                assert client.recv(1) == b""
            except ConnectionError:
                continue


def test_a_hostile_name_is_a_label_and_no_line(make_node: NodeMaker) -> None:
    node = make_node(LISTEN)
    node.guest("web1", "2202:22").start()
    (path,) = (node.runtime / "guests").iterdir()
    record = json.loads(path.read_text())
    record["name"] = 'x"} 1\ncgw_problems{code="y\\'
    path.write_text(json.dumps(record))
    with measured(node):
        found = numbers(ask(node))
        assert value(found, "cgw_problems", code="y\\") is None
        (label,) = {
            dict(labels)["guest"] for name, labels in found if name == "cgw_port_open_connections"
        }
        assert label == 'x"} 1\\ncgw_problems{code="y\\'

"""The bytes of ports since they were published: the agent adds up what the kernel counts."""

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from cgw_hooks.agent.metrics.page import Page
from cgw_hooks.agent.metrics.tally import Tally
from cgw_hooks.core.connection import Traffic
from cgw_hooks.core.guest import Guest, GuestKey
from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.core.record import Record, State
from cgw_hooks.host import conntrack
from cgw_hooks.host.state.state import State as NodeState
from cgw_hooks.node.figures import Figures
from cgw_hooks.node.measurements import Measurements
from cgw_hooks.node.publisher import Publisher
from tests.netns.agent import running_agent
from tests.netns.asker import Asker
from tests.netns.configs import NODE
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node
from tests.netns.test_figures import figures, only, settings
from tests.netns.test_metrics import LISTEN, ask, measured, numbers, value
from tests.unit.builders import port

pytestmark = pytest.mark.netns

BYTES = "[metrics]\nbytes = true\n"
_LONGEST_WAIT = 60.0


def figure(node: Node) -> dict[str, Any]:
    return only(figures(node, "web1"))


def talk(client: Asker, listen: int = 2207, size: int = 20_000) -> None:
    """One connection that ends."""

    def has_talked() -> bool:
        try:
            with client.tcp_session(NODE[4], listen) as session:
                session.exchange("x" * size)
        except OSError:
            # On a very busy machine nobody answers the first questions for the guest's address.
            return False
        return True

    until(has_talked)


def forget(node: Node) -> None:
    """Let the kernel forget the connections, as it does two minutes after their end."""
    selection = conntrack.Selection("tcp", 4, [range(2200, 2300)])
    assert node.namespace.call(lambda: conntrack.delete_flows(selection, lambda _: True))


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _LONGEST_WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_counted(node: Node) -> bool:
    return (node.runtime / "bytes.json").exists()


def is_about(count: int | None, expected: int) -> bool:
    """Whether a count is this number of bytes, and the headers."""
    return count is not None and expected <= count < expected * 1.3


def test_bytes_stay_when_the_kernel_forgets_a_connection(
    make_node: NodeMaker, client: Asker
) -> None:
    node = make_node(BYTES)
    settings(node, "acct")
    web1 = node.guest("web1", "2207:7", serves="7/tcp-echo")
    node.guest("web2", "2208:7", serves="7/tcp-echo").start()
    with running_agent(node) as agent:
        until(lambda: is_counted(node))
        web1.start()
        assert figure(node)["bytes_received"] == 0
        talk(client)
        assert is_about(figure(node)["bytes_received"], 20_000)  # the kernel still has them
        forget(node)
        until(lambda: is_about(figure(node)["bytes_received"], 20_000))
        talk(client)
        talk(client, 2208)  # another guest's
        forget(node)
        until(lambda: is_about(figure(node)["bytes_received"], 40_000))
        assert is_about(figure(node)["bytes_sent"], 40_000)
        assert figure(node)["open_bytes_received"] == 0
        table = node.cgw("status", "--figures").stdout
        assert "RECEIVED  SENT" in " ".join(table.split()).replace(
            "RECEIVED SENT", "RECEIVED  SENT"
        )
        assert "(OPEN)" not in table
        web1.stop()
        web1.start()
        assert figure(node)["bytes_received"] == 0
        talk(client)
        agent.signal(signal.SIGKILL)
        agent.wait()
    assert is_about(figure(node)["bytes_received"], 20_000)
    with running_agent(node):
        forget(node)
        until(lambda: is_about(figure(node)["bytes_received"], 20_000))


def test_a_reload_begins_and_ends_the_count(make_node: NodeMaker, client: Asker) -> None:
    node = make_node()
    settings(node, "acct")
    node.guest("web1", "2207:7", serves="7/tcp-echo").start()
    with running_agent(node) as agent:
        talk(client)
        assert figure(node)["bytes_received"] is None
        assert "RECEIVED (OPEN)" in node.cgw("status", "--figures").stdout
        node.configure(BYTES)
        agent.signal(signal.SIGHUP)
        until(lambda: is_counted(node))
        assert is_about(figure(node)["bytes_received"], 20_000)
        node.configure("")
        agent.signal(signal.SIGHUP)
        until(lambda: not is_counted(node))
        assert figure(node)["bytes_received"] is None


def test_a_kernel_that_does_not_count_is_named_with_the_cure(make_node: NodeMaker) -> None:
    node = make_node(BYTES)
    node.guest("web1", "2207:7").start()
    with running_agent(node) as agent:
        assert agent.process.stderr
        line = agent.process.stderr.readline()
        assert "net.netfilter.nf_conntrack_acct is 0; run: sysctl -w" in line
        assert figure(node)["bytes_received"] is None
        settings(node, "acct")
        assert figure(node)["bytes_received"] == 0
        node.namespace.sysctl({"net/netfilter/nf_conntrack_events": "0"})
        line = agent.process.stderr.readline()
        assert "net.netfilter.nf_conntrack_events is 0; run: sysctl -w" in line


def test_prometheus_gets_the_bytes(make_node: NodeMaker, client: Asker) -> None:
    node = make_node(LISTEN + "bytes = true\n")
    settings(node, "acct")
    node.guest("web1", "2207:7", serves="7/tcp-echo").start()
    of_port = {"guest": "web1", "port": "*:2207/tcp", "direction": "sent"}
    with measured(node):
        until(lambda: is_counted(node))
        talk(client)
        until(lambda: (value(numbers(ask(node)), "cgw_port_bytes_total", **of_port) or 0) > 20_000)


def test_a_broken_file_is_as_good_as_none(make_node: NodeMaker) -> None:
    node = make_node(BYTES)
    settings(node, "acct")
    node.guest("web1", "2207:7").start()
    file = node.runtime / "bytes.json"
    for text in ("", "[", "[1]", '{"a": 1}', '{"a": ["x", 2]}', "{" * 100_000):
        file.write_text(text)
        assert figure(node)["bytes_received"] is None
    with running_agent(node):
        until(lambda: figure(node)["bytes_received"] == 0)


def test_a_counter_does_not_fall_while_a_forgotten_connection_is_not_added_up_yet() -> None:
    published = port(2207, 7)
    record = Record(Guest(GuestKey("qemu", "1"), "web1", (published,)), State.PUBLISHED, 1000.0)
    page = Page(Publisher(NodeConfig(), NodeState("/nowhere")), Tally(), per_port=True)

    def told(record: Record, received: int) -> float:
        traffic = Traffic(received, 0)
        found = Measurements({}, {}, {}, [(record, published, Figures(1, 0, traffic, traffic))])
        families = page._of_ports(found)  # noqa: SLF001
        (count,) = [
            sample.value for family in families for sample in family.samples
            if sample.labels.get("direction") == "received"
        ]  # fmt: skip
        return float(count)

    assert [told(record, count) for count in (100, 60, 120, 120)] == [100, 100, 120, 120]
    again = record._replace(since=2000.0)  # the guest was started again
    assert told(again, 5) == 5

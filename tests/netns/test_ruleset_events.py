"""What the resident process hears of commits to the ruleset, from a real kernel."""

import select
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.core.record import Contents
from cgw_hooks.core.rules import table
from cgw_hooks.host.ruleset_events import COMMAND_NAME, Commits, RulesetEvents
from tests.lab.namespace import Namespace, namespace
from tests.netns.node import PYTHON

pytestmark = pytest.mark.netns

NOTHING = Commits()
OURS = Commits(frozenset({"inet cgw"}))
OTHERS = Commits(others=True)
MANY = 10_000
#: Seconds until the kernel has told what it has to tell.
LONGEST_WAIT = 60.0
FOREIGN_TABLE = """
table ip foreign {
    set blocked { type ipv4_addr; }
    counter hits { }
    chain input { type filter hook input priority 0; counter; }
}
"""
#: A process with the resident process's name, that commits what it reads.
_AS_THE_AGENT = """
import sys
from cgw_hooks.host.nft import Nft
from cgw_hooks.host.ruleset_events import name_this_process
name_this_process()
Nft().apply(sys.stdin.read())
"""


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with our table and another program's."""
    with namespace("ruleset") as inside:
        commit(inside, table.restore(NodeConfig(), Contents()) + FOREIGN_TABLE)
        yield inside


@pytest.fixture
def events(host: Namespace) -> Iterator[RulesetEvents]:
    """Everything that is committed from now on."""
    made = host.call(RulesetEvents)
    yield made
    made.close()


def commit(host: Namespace, text: str) -> None:
    host.run(["nft", "-f", "-"], input=text)


def commit_as_the_agent(host: Namespace, text: str) -> None:
    host.run([str(PYTHON), "-c", _AS_THE_AGENT], input=text)


def heard(events: RulesetEvents) -> Commits:
    """What is told of commits that have ended: the kernel tells before it answers."""
    return events.read()


def send_a_packet() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", ("127.0.0.1", 9))


def element(port: int = 1) -> str:
    return f"add element inet cgw published4 {{ tcp . {port} : 10.5.5.1 . 22 }}\n"


def test_an_element_of_ours_that_another_process_adds(
    host: Namespace, events: RulesetEvents
) -> None:
    assert heard(events) == NOTHING
    commit(host, element())
    assert select.select([events], [], [], LONGEST_WAIT)[0] == [events]
    assert heard(events) == OURS
    assert heard(events) == NOTHING
    assert not heard(events)


def test_our_bridge_table(host: Namespace, events: RulesetEvents) -> None:
    commit(host, "add table bridge cgw")
    assert heard(events) == Commits(frozenset({"bridge cgw"}))


def test_a_flush_of_everything(host: Namespace, events: RulesetEvents) -> None:
    commit(host, "flush ruleset")
    assert heard(events) == Commits(frozenset({"inet cgw"}), others=True)


def test_a_table_of_our_name_in_another_family_is_not_ours(
    host: Namespace, events: RulesetEvents
) -> None:
    commit(host, "table arp cgw { }")
    assert heard(events) == OTHERS


def test_own_commits_are_left_out(host: Namespace, events: RulesetEvents) -> None:
    commit_as_the_agent(host, element() + "add rule ip foreign input accept\n")
    assert heard(events) == NOTHING
    commit_as_the_agent(host, element(2))
    commit(host, "add rule ip foreign input drop")
    commit_as_the_agent(host, element(3))
    assert heard(events) == OTHERS


@pytest.mark.parametrize(
    "text",
    [
        "add rule ip foreign input drop",
        "insert rule ip foreign input drop",
        "flush chain ip foreign input",
        "add chain ip foreign more",
        "add chain ip foreign input { policy drop; }",
        "add table ip6 more",
        "delete table ip foreign",
    ],
)
def test_rules_of_other_programs(host: Namespace, events: RulesetEvents, text: str) -> None:
    commit(host, text)
    assert heard(events) == OTHERS


def test_iptables(host: Namespace, events: RulesetEvents) -> None:
    host.run(["iptables", "-I", "FORWARD", "-j", "ACCEPT"])
    assert heard(events) == OTHERS


@pytest.mark.parametrize(
    "text",
    [
        "add element ip foreign blocked { 192.0.2.1 }",
        "add set ip foreign more { type ipv4_addr; }",
        "flush set ip foreign blocked",
        "reset counters",
        "list ruleset",
        "add table ip foreign",
    ],
)
def test_what_decides_nothing_about_packets_wakes_nobody(
    host: Namespace, events: RulesetEvents, text: str
) -> None:
    commit(host, text)
    assert heard(events) == NOTHING


@pytest.mark.parametrize("table_name", ["ip foreign", "inet cgw"])
def test_packets_wake_nobody(host: Namespace, events: RulesetEvents, table_name: str) -> None:
    """They count, and they add elements to sets, which end later."""
    commit(
        host,
        f"add set {table_name} passed {{\n"
        "  type ipv4_addr; size 128; flags dynamic,timeout; timeout 1s;\n"
        "}\n"
        f"add counter {table_name} hits2\n"
        f"add chain {table_name} tally {{ type filter hook input priority 0; }}\n"
        f"add rule {table_name} tally counter name hits2\n"
        f"add rule {table_name} tally add @passed {{ ip saddr }}\n",
    )
    assert heard(events)
    host.call(send_a_packet)

    def has_passed() -> bool:
        listed = host.run(["nft", "list", "set", *table_name.split(), "passed"]).stdout
        return "127.0.0.1 " in listed

    assert has_passed()
    deadline = time.monotonic() + LONGEST_WAIT
    while has_passed():
        assert time.monotonic() < deadline
    assert heard(events) == NOTHING


def test_a_refused_transaction_wakes_nobody(host: Namespace, events: RulesetEvents) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        commit(host, element() + "add rule ip foreign absent drop\n")
    assert heard(events) == NOTHING


def test_very_many_elements_are_all_heard(host: Namespace, events: RulesetEvents) -> None:
    listed = ", ".join(f"tcp . {n} : 10.5.5.1 . {n}" for n in range(1, MANY + 1))
    commit(host, f"add element inet cgw published4 {{ {listed} }}")
    begun = time.thread_time()
    assert heard(events) == OURS
    assert time.thread_time() - begun < 1
    commit(host, "flush map inet cgw published4")
    assert heard(events) == OURS


def test_lost_messages_are_told(host: Namespace) -> None:
    events = host.call(lambda: RulesetEvents(buffer_size=1))
    try:
        listed = ", ".join(f"tcp . {n} : 10.5.5.1 . {n}" for n in range(1, MANY + 1))
        commit(host, f"add element inet cgw published4 {{ {listed} }}")
        assert heard(events).lost
        commit(host, element(MANY + 1))
        assert heard(events) == OURS
    finally:
        events.close()


def test_the_name_is_one_that_the_kernel_keeps_whole() -> None:
    assert len(COMMAND_NAME) <= 15


def test_another_namespace_is_not_heard(host: Namespace, events: RulesetEvents) -> None:
    with namespace("elsewhere") as elsewhere:
        commit(elsewhere, FOREIGN_TABLE)
    commit(host, element())
    assert heard(events) == OURS

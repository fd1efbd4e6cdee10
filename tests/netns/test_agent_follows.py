"""What the agent follows by itself: other programs' changes, listeners of the node, its config."""

import signal
import time
from collections.abc import Callable

import pytest

from tests.lab.server import serve
from tests.libvirt.waiting import eventually
from tests.netns.agent import Agent, running_agent
from tests.netns.asker import REFUSED, Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS
from tests.netns.conftest import NodeMaker
from tests.netns.guest import DONE, Guest
from tests.netns.node import OUR_TABLE, Node

pytestmark = pytest.mark.netns

NODE4 = NODE[4]
ANSWER = f"web1 saw {CLIENT[4]}"

#: What other people do to our table: nft commands.
DAMAGES = {
    "flush ruleset": "flush ruleset\n",
    "delete table": f"delete table {OUR_TABLE}\n",
    "flush table": f"flush table {OUR_TABLE}\n",
    "delete element": f"delete element {OUR_TABLE} published4 {{ tcp . 2202 }}\n",
    "flush map": f"flush map {OUR_TABLE} published4\n",
    "add element": f"add element {OUR_TABLE} published4 {{ tcp . 2299 : 10.5.5.99 . 22 }}\n",
    "delete rules": f"flush chain {OUR_TABLE} publish\n",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_our_table_is_restored_when_anybody_changes_it(
    client: Asker, node: Node, damage: str
) -> None:
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    with running_agent(node):
        web1.start()
        for _ in range(2):
            node.nft(damage)
            assert eventually(lambda: client.asks(NODE4, 2202) == ANSWER)
            assert eventually(lambda: is_as_recorded(node))


def is_as_recorded(node: Node) -> bool:
    try:
        assert_as_recorded(node)
    except AssertionError:
        return False
    return True


def test_a_guest_goes_out_again_after_a_flush(client: Asker, make_node: NodeMaker) -> None:
    node = make_node(FULL_NAT)
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    client.serve(CLIENT[4], "9090/tcp", "outside")
    with running_agent(node):
        web1.start()
        node.nft("flush ruleset\n")
        assert eventually(lambda: web1.asks(CLIENT[4], 9090) == f"outside saw {NODE4}")


def test_a_listener_of_the_node_that_comes_later_gets_its_port(client: Asker, node: Node) -> None:
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    with running_agent(node):
        web1.start()
        with serve(node.namespace, "0.0.0.0", "tcp", 2202, "node"):
            assert eventually(lambda: client.asks(NODE4, 2202) == f"node saw {CLIENT[4]}")
            assert node.states() == {"web1": "withheld"}
        assert eventually(lambda: client.asks(NODE4, 2202) == ANSWER)


def test_a_new_config_holds_after_sighup_and_a_bad_one_does_not(
    client: Asker, make_node: NodeMaker
) -> None:
    node = make_node()
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    with running_agent(node) as agent:
        web1.start()
        assert client.asks(NODE4, 2202) == ANSWER
        node.configure(FULL_NAT)
        reload(agent)
        assert eventually(lambda: client.asks(NODE4, 2202) == "web1 saw 10.5.5.251")
        node.configure("nonsense = 1\n")
        reload(agent)
        node.nft("flush ruleset\n")
        assert eventually(lambda: client.asks(NODE4, 2202) == "web1 saw 10.5.5.251")
        node.configure(FULL_NAT)
        web1.stop()


def reload(agent: Agent) -> None:
    agent.signal(signal.SIGHUP)
    agent.wait_until_told("READY=1")


def test_nothing_happens_on_an_idle_host(node: Node) -> None:
    guests = [node.guest(f"web{n}", f"{2200 + n}:22") for n in range(1, 6)]
    with running_agent(node) as agent:
        for guest in guests:
            guest.start()
        time.sleep(1)
        generation, spent = generation_of(node), agent.cpu_seconds()
        files = {path: path.stat().st_mtime_ns for path in node.runtime.rglob("*")}
        time.sleep(10)
        assert agent.cpu_seconds() - spent < 0.1
        assert generation == generation_of(node)
        assert files == {path: path.stat().st_mtime_ns for path in node.runtime.rglob("*")}
        assert agent.resident_megabytes() < 60


def generation_of(node: Node) -> int:
    from cgw_hooks.host.ruleset_generation import generation

    found: Callable[[], int] = generation
    return node.namespace.call(found)


def test_remote_guests_of_a_changed_config_are_published(
    client: Asker, make_node: NodeMaker
) -> None:
    node = make_node()
    web1: Guest = node.guest("web1", serves="22/tcp")
    with running_agent(node) as agent:
        node.configure(
            f'[[remote-guest]]\nname = "web1"\naddress = "10.5.5.{web1.octet}"\n'
            'publish = ["2202:22"]\n'
        )
        reload(agent)
        assert eventually(lambda: client.asks(NODE4, 2202) == ANSWER)
        node.configure("")
        reload(agent)
        assert eventually(lambda: node.records() == {})


def test_a_gateway_that_was_taken_down_stays_down(client: Asker, make_node: NodeMaker) -> None:
    node = make_node(FULL_NAT)
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    with running_agent(node):
        node.cgw("node", "up")
        web1.start()
        assert client.asks(NODE4, 2202) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
        node.cgw("node", "down")
        assert client.asks(NODE4, 2202) == REFUSED
        node.nft("add table inet other; add chain inet other rules; delete table inet other\n")
        time.sleep(2)
        assert client.asks(NODE4, 2202) == REFUSED
        assert "10.5.5.251" not in node.ruleset()
        node.cgw("node", "up")
        assert web1.hook("reconnect") == DONE
        assert client.asks(NODE4, 2202) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
        web1.stop()
        node.cgw("node", "down")


def test_a_guest_bridge_that_was_made_anew_is_told(make_node: NodeMaker) -> None:
    """Where systemd runs, the agent lets it reload cgw-node.service (tests/systemd)."""
    node = make_node(FULL_NAT)
    with running_agent(node) as agent:
        node.cgw("node", "up")
        node.namespace.ip("address flush dev guestbr0\n")
        assert agent.process.stderr
        said = "cgw: agent: the gateway has lost the address 10.5.5.251 of guestbr0"
        assert any(said in line for line in agent.process.stderr)
        node.cgw("node", "down")

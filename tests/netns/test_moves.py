"""A guest leaves a node of a cluster whose agent does not run: the hook alone knows where to."""

from collections.abc import Iterator

import pytest

from cgw_hooks.core.guest import REGISTRY, GuestKey
from cgw_hooks.host.config_file import load_config
from cgw_hooks.node.publisher import Publisher
from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import FULL_NAT, NODE, NODE_AMONG_GUESTS
from tests.netns.conftest import NodeMaker
from tests.netns.guest import DONE, Guest

pytestmark = pytest.mark.netns

PORT = 2202
ANSWERS = f"web1 saw {NODE_AMONG_GUESTS[4]}"
#: Nobody listens there.
IN_A_CLUSTER = '[node]\nname = "node1"\n[registry]\nendpoints = ["http://127.0.0.1:1"]\n'


@pytest.fixture
def web1(client: Asker, make_node: NodeMaker) -> Iterator[Guest]:
    """A guest of the network that all nodes share; it answers wherever it runs."""
    node = make_node(IN_A_CLUSTER + FULL_NAT)
    node.cgw("node", "up")
    guest = node.guest("web1", f"{PORT}:22", serves="22/tcp")
    guest.start()
    assert client.asks(NODE[4], PORT) == ANSWERS
    yield guest
    node.stop_all_guests()
    node.configure(FULL_NAT)
    node.cgw("node", "up")
    node.cgw("node", "down")


def test_a_guest_that_has_migrated_stays_open_until_its_node_leaves_the_cluster(
    client: Asker, web1: Guest
) -> None:
    assert web1.hook("stopped") == DONE
    assert client.asks(NODE[4], PORT) == ANSWERS, "the reason only comes at release"
    assert web1.hook("release", "migrated") == DONE
    assert client.asks(NODE[4], PORT) == ANSWERS
    (record,) = web1.node.records().values()
    assert (record["driver"], record["moved"]) == ("registry", True)
    web1.node.cgw("sync", check=False)
    assert client.asks(NODE[4], PORT) == ANSWERS
    web1.node.configure(FULL_NAT)
    web1.node.cgw("sync", check=False)
    assert client.asks(NODE[4], PORT) == REFUSED
    assert web1.node.records() == {}


@pytest.mark.parametrize("reason", ["-", "shutdown", "destroyed", "crashed", "saved", "failed"])
def test_a_guest_that_has_not_migrated_is_closed(client: Asker, web1: Guest, reason: str) -> None:
    web1.stop(reason)
    assert client.asks(NODE[4], PORT) == REFUSED
    assert web1.node.records() == {}


def test_a_guest_that_came_back_and_stops_is_closed(client: Asker, web1: Guest) -> None:
    web1.stop("migrated")
    web1.start()
    assert client.asks(NODE[4], PORT) == ANSWERS
    web1.stop("shutdown")
    assert client.asks(NODE[4], PORT) == REFUSED
    assert web1.node.records() == {}


def test_a_guest_that_fails_to_come_back_stays_open(client: Asker, web1: Guest) -> None:
    web1.stop("migrated")
    web1.start()
    web1.stop("failed")
    assert client.asks(NODE[4], PORT) == ANSWERS
    web1.start()
    web1.stop("shutdown")
    assert web1.node.records() == {}


def test_what_the_registry_says_of_a_guest_is_not_replaced_by_its_move(web1: Guest) -> None:
    """The agent may hear of the new entry while the hook is about to note the move."""
    node = web1.node

    def publish(*, has_moved: bool) -> None:
        publisher = Publisher(load_config(str(node.config_file)), node.state)
        own = node.state.peek(GuestKey.parse(web1.key))
        assert own
        remote = own.guest._replace(key=GuestKey(REGISTRY, own.guest.uuid))
        publisher.publish_remote(remote, has_moved=has_moved)

    node.namespace.call(lambda: publish(has_moved=False))
    node.namespace.call(lambda: publish(has_moved=True))
    assert not any("moved" in record for record in node.records().values())

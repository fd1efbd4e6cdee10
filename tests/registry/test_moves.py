"""A guest that migrates while etcd does not answer: its former node cannot see its new entry."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.full import is_full
from tests.libvirt.waiting import eventually
from tests.netns.asker import REFUSED, TIMED_OUT
from tests.netns.guest import Guest
from tests.registry.cluster import RegistryCluster, arrive, has_homes, has_no_records, leave
from tests.registry.outages import kill_all, kill_leader

pytestmark = pytest.mark.registry

PORT = 2201
ROUNDS = 24 if is_full() else 3
NOBODY = {REFUSED, TIMED_OUT}


def kill_all_noticed(made: RegistryCluster) -> None:
    """Kill all members, and wait until each agent has noticed this."""
    made.etcd.kill()
    assert eventually(lambda: not any(made.connected(number) for number in made.nodes))


#: The next hook call may come before the agents have noticed the second one.
OUTAGES = {"noticed": kill_all_noticed, "not yet noticed": kill_all, "leader killed": kill_leader}


@contextmanager
def running(made: RegistryCluster) -> Iterator[Guest]:
    """The guest web1, which runs on the first node and then wherever the block lets it move."""
    guest = made.guest("web1")
    guest.start()
    made.until_open(PORT, "web1")
    try:
        yield guest
    finally:
        made.mend()
        for node in made.nodes.values():
            leave(node, guest, "shutdown")
        guest.hooked.clear()
    made.until_closed(PORT)
    assert eventually(lambda: made.keys() == {}), made.keys()
    for node in made.nodes.values():
        assert eventually(partial(has_no_records, node)), node.records()


@contextmanager
def running_alone(made: RegistryCluster) -> Iterator[Guest]:
    """The same, but each agent knows that etcd does not answer."""
    with running(made) as guest:
        kill_all_noticed(made)
        yield guest


def move(made: RegistryCluster, guest: Guest, source: int, target: int) -> None:
    """Let a guest migrate from one node to another."""
    arrive(made.nodes[target], guest)
    leave(made.nodes[source], guest)


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_guest_that_migrates_without_the_registry_is_never_closed(
    made: RegistryCluster, outage: str
) -> None:
    source, target = 1, 2
    with running(made) as guest:
        for _ in range(ROUNDS):
            with made.connecting(PORT) as connections:
                OUTAGES[outage](made)
                move(made, guest, source, target)
                time.sleep(0.5)
                made.mend()
                assert eventually(partial(has_homes, made, f"node{target}"))
                made.until_open(PORT, "web1")
                time.sleep(0.5)
            assert connections.failed == []
            source, target = target, source


def test_it_is_shown_as_published_at_its_former_node_as_a_guest_of_the_registry(
    made: RegistryCluster,
) -> None:
    with running_alone(made) as guest:
        move(made, guest, 1, 2)
        assert made.nodes[1].states() == {"web1": "published"}
        (key,) = made.nodes[1].state.keys()
        assert key.driver == "registry"
        made.nodes[1].cgw("sync", check=False)  # libvirt does not answer in this lab
        assert made.answers(PORT)[1].startswith("web1 ")
        made.kill_agent(1)
        made.start_agent(1)
        assert made.answers(PORT)[1].startswith("web1 ")
        made.mend()
        assert eventually(partial(has_homes, made, "node2"))
        made.until_open(PORT, "web1")


@pytest.mark.parametrize("reason", ["shutdown", "destroyed", "crashed", "-"])
def test_a_guest_that_ends_without_the_registry_is_closed_at_its_node_at_once(
    made: RegistryCluster, reason: str
) -> None:
    with running_alone(made) as guest:
        leave(made.nodes[1], guest, reason)
        assert made.answers(PORT)[1] in NOBODY
        assert has_no_records(made.nodes[1])


def test_a_guest_that_moves_away_and_ends_there_without_the_registry_is_closed_after(
    made: RegistryCluster,
) -> None:
    with running_alone(made) as guest:
        move(made, guest, 1, 2)
        leave(made.nodes[2], guest, "destroyed")
        made.mend()
        made.until_closed(PORT)


def test_a_guest_that_moves_away_and_back_without_the_registry_is_never_closed(
    made: RegistryCluster,
) -> None:
    with running(made) as guest, made.connecting(PORT, 1, 3) as connections:
        kill_all_noticed(made)
        move(made, guest, 1, 2)
        for operation in ("prepare", "start", "started"):  # a migration that fails
            made.nodes[1].hook(guest.name, operation, "-", guest.xml)
        leave(made.nodes[1], guest, "failed")
        move(made, guest, 2, 1)
        made.mend()
        assert eventually(partial(has_homes, made, "node1"))
        made.until_open(PORT, "web1")
    assert connections.failed == []


def test_a_guest_that_came_back_and_ends_without_the_registry_is_closed_at_its_node(
    made: RegistryCluster,
) -> None:
    with running_alone(made) as guest:
        move(made, guest, 1, 2)
        move(made, guest, 2, 1)
        leave(made.nodes[1], guest, "shutdown")
        assert made.answers(PORT)[1] in NOBODY
        assert has_no_records(made.nodes[1])
        made.mend()
        made.until_closed(PORT)

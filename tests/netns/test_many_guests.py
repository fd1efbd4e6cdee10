"""A hundred guests at the same instant, and a sync under traffic: nothing lost, nobody refused."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pytest

from tests.netns.asker import REFUSED, Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import FULL_NAT, NODE, NONE
from tests.netns.conftest import NodeMaker
from tests.netns.guest import DONE, Finished, Guest
from tests.netns.node import OUR_TABLE, Node

pytestmark = pytest.mark.netns

GUESTS = 100
SYNCS = 12

Result = TypeVar("Result")


def at_once(guests: list[Guest], act: Callable[[Guest], Result]) -> list[Result]:
    """The same for all of them, each in a process of its own, as libvirt runs its hooks."""
    with ThreadPoolExecutor(len(guests)) as pool:
        return list(pool.map(act, guests))


@pytest.fixture
def guests(node: Node) -> Iterator[list[Guest]]:
    """With a port each; the first, one in the middle and the last are on the wire."""
    made = [
        node.guest(f"web{n}", f"{2200 + n}:22", serves="22/tcp" if n in {0, 50, 99} else "")
        for n in range(GUESTS)
    ]
    yield made
    at_once(made, lambda guest: guest.stop() if guest.hooked else None)


def answers(client: Asker) -> list[str]:
    return [client.asks(NODE[4], 2200 + n).split()[0] for n in (0, 50, 99)]


def started(guest: Guest) -> Finished:
    return guest.hook("started")


def test_a_hundred_that_start_at_once_are_all_published_and_leave_nothing(
    client: Asker, node: Node, guests: list[Guest]
) -> None:
    assert at_once(guests, started) == [DONE] * GUESTS
    assert node.states() == {guest.name: "published" for guest in guests}
    assert set(node.records()) == {guest.key for guest in guests}
    assert_as_recorded(node)
    assert answers(client) == ["web0", "web50", "web99"]
    at_once(guests, Guest.stop)
    assert node.files() == {}
    assert_as_recorded(node)
    assert answers(client) == [REFUSED] * 3


def test_half_of_them_stop_while_the_other_half_starts(
    client: Asker, node: Node, guests: list[Guest]
) -> None:
    stopping, starting = guests[:50], guests[50:]
    assert at_once(stopping, started) == [DONE] * 50

    def act(guest: Guest) -> None:
        if guest in stopping:
            guest.stop()
        else:
            guest.start()

    at_once([guest for pair in zip(stopping, starting, strict=True) for guest in pair], act)
    assert node.states() == {guest.name: "published" for guest in starting}
    assert_as_recorded(node)
    assert answers(client) == [REFUSED, "web50", "web99"]


def test_a_table_lost_while_they_start_comes_back_with_all_of_them(
    client: Asker, node: Node, guests: list[Guest]
) -> None:
    """Every call that finds no table restores it, and so do those beside it."""

    def act(guest: Guest) -> Finished:
        if guest is guests[40]:
            node.nft(f"add table {OUR_TABLE}; delete table {OUR_TABLE}\n")
        return guest.hook("started")

    assert at_once(guests, act) == [DONE] * GUESTS
    assert_as_recorded(node)
    assert answers(client) == ["web0", "web50", "web99"]


# -- under traffic ---------------------------------------------------------------------------


@contextmanager
def knocking(client: Asker, port: int) -> Iterator[Counter[str]]:
    """New connections to a port, one after the other; how many ended how."""
    outcomes: Counter[str] = Counter()
    over = threading.Event()

    def knock() -> None:
        while not over.is_set():
            outcomes[client.asks(NODE[4], port).split()[0]] += 1

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield outcomes
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("configs", [[NONE], [NONE, FULL_NAT]], ids=["same", "config-changes"])
def test_a_sync_refuses_no_client(client: Asker, make_node: NodeMaker, configs: list[str]) -> None:
    """What is there stays while all of it is put back, also where the static rules change."""
    node = make_node(NONE)
    node.guest("web1", "2202:22", serves="22/tcp").start()
    node.guest("many", "3000-3099:1").start()
    with knocking(client, 2202) as outcomes:
        for number in range(SYNCS):
            node.configure(configs[number % len(configs)])
            node.cgw("sync", check=False)  # libvirt does not answer here: the records count
    assert set(outcomes) == {"web1"}
    assert outcomes["web1"] > SYNCS
    assert_as_recorded(node)


def test_starts_and_stops_of_others_refuse_no_client(client: Asker, node: Node) -> None:
    node.guest("web1", "2202:22", serves="22/tcp").start()
    others = [node.guest(f"web{n}", f"{2200 + n}:22") for n in range(3, 9)]
    with knocking(client, 2202) as outcomes:
        for guest in others:
            guest.start()
            guest.stop()
    assert set(outcomes) == {"web1"}


def test_an_established_connection_survives_syncs(client: Asker, node: Node) -> None:
    node.guest("web1", "2202:7", serves="7/tcp-echo").start()
    with client.tcp_session(NODE[4], 2202) as session:
        for number in range(3):
            node.cgw("sync", check=False)
            assert session.exchange(f"after sync {number}") == f"after sync {number}"

"""Hooks run while `cgw sync` does: what a hook has just done for its guest stands."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.record import State
from tests.lab.domain import domain_xml, guest_uuid
from tests.netns.asker import REFUSED, Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import FULL_NAT, NODE
from tests.netns.guest import Guest
from tests.netns.halts import LISTING, halted_cgw
from tests.netns.node import Node
from tests.netns.running_guests import RunningGuests
from tests.netns.specs import port_forward

pytestmark = pytest.mark.netns

LOST = 150
WORKERS = 3


@pytest.fixture
def running(node: Node) -> Iterator[RunningGuests]:
    """At the end none runs, and a sync has withdrawn those that have had no hook."""
    made = RunningGuests(node)
    yield made
    made.clear()
    made.start_sync().communicate(b"")


@pytest.fixture
def web1(node: Node, running: RunningGuests) -> Guest:
    """Runs and is published; its table is there, so that a sync lists it."""
    guest = node.guest("web1", "2201:22", serves="22/tcp")
    running.start(guest)
    return guest


def lose_record(node: Node, running: RunningGuests) -> Guest:
    """The guest web2, which runs, but whose hook was never called."""
    lost = node.guest("web2", "2202:22", serves="22/tcp")
    running.add(lost.name, lost.xml)
    return lost


def answering(client: Asker, *ports: int) -> list[str]:
    """Who answers the client at each of these ports."""
    return [client.asks(NODE[4], port).split()[0] for port in ports]


def sync_while(node: Node, running: RunningGuests, act: Callable[[], None]) -> int:
    """Act after the sync has asked libvirt, before it takes the lock; its exit code."""
    with halted_cgw(node, LISTING, "sync", libvirt=running.uri) as sync:
        act()
    return sync.returncode


@pytest.mark.usefixtures("web1")
def test_a_guest_that_starts_meanwhile_stays_published(
    client: Asker, node: Node, running: RunningGuests
) -> None:
    web2 = node.guest("web2", "2202:22", serves="22/tcp")
    assert 0 == sync_while(node, running, lambda: running.start(web2))
    assert ["web1", "web2"] == answering(client, 2201, 2202)
    assert_as_recorded(node)


def test_a_guest_that_stops_meanwhile_stays_closed(
    client: Asker, node: Node, running: RunningGuests, web1: Guest
) -> None:
    assert 0 == sync_while(node, running, lambda: running.stop(web1))
    assert REFUSED == client.asks(NODE[4], 2201)
    assert not node.records()
    assert_as_recorded(node)


@pytest.mark.usefixtures("web1")
def test_a_guest_whose_record_was_lost_and_that_stops_meanwhile_stays_closed(
    client: Asker, node: Node, running: RunningGuests
) -> None:
    web2 = lose_record(node, running)
    assert 0 == sync_while(node, running, lambda: running.stop(web2))
    assert REFUSED == client.asks(NODE[4], 2202)
    assert web2.key not in node.records()
    assert_as_recorded(node)


@pytest.mark.usefixtures("web1")
def test_the_others_are_put_right_in_the_same_sync(
    client: Asker, node: Node, running: RunningGuests
) -> None:
    lose_record(node, running)
    gone = node.guest("web3", "2203:22", serves="22/tcp")
    running.start(gone)
    running.remove(gone.name)  # it was killed, and its hook with it
    web4 = node.guest("web4", "2204:22", serves="22/tcp")
    assert 0 == sync_while(node, running, lambda: running.start(web4))
    assert ["web1", "web2", REFUSED, "web4"] == answering(client, 2201, 2202, 2203, 2204)
    assert_as_recorded(node)


@pytest.mark.usefixtures("web1")
def test_a_port_that_a_hook_has_given_away_meanwhile_is_not_given_to_another(
    client: Asker, node: Node, running: RunningGuests
) -> None:
    lose_record(node, running)
    web3 = node.guest("web3", "2202:22", serves="22/tcp")
    assert 1 == sync_while(node, running, lambda: running.start(web3))
    problem = node.status()["web2"]["problem"]["message"]
    assert 'port *:2202/tcp is published by guest "web3"' == problem
    assert ["web3"] == answering(client, 2202)
    assert_as_recorded(node)


@pytest.mark.usefixtures("web1")
def test_a_guest_that_arrives_meanwhile_overrides_its_new_config_entry(
    client: Asker, node: Node, running: RunningGuests
) -> None:
    web2 = node.guest("web2", "2202:22", serves="22/tcp")
    node.configure(
        f'{FULL_NAT}[[remote-guest]]\nname = "web2"\nuuid = "{guest_uuid(web2.octet)}"\n'
        'address = "10.5.5.99"\npublish = ["2202:22", "2203:22"]\n'
    )
    assert 0 == sync_while(node, running, lambda: running.start(web2))
    assert "web2" == client.asks(NODE[4], 2202).split()[0]
    assert REFUSED == client.asks(NODE[4], 2203)
    assert_as_recorded(node)
    running.stop(web2)
    assert [f"remote-{web2.name}"] == [r for r in node.records() if r.startswith("remote")]
    node.configure("")


# -- a storm -------------------------------------------------------------------------------------


class Storm:
    """Guests that start and stop without a pause, and are held against their records."""

    def __init__(self, running: RunningGuests, guests: list[Guest]) -> None:
        self._running, self._guests = running, guests
        self.over = threading.Event()
        self.running: set[str] = set()
        self.calls = 0

    def blow(self, worker: int) -> None:
        guests = self._guests[worker::WORKERS]
        while not self.over.is_set():
            for guest in guests:
                self._turn(guest)

    def _turn(self, guest: Guest) -> None:
        key, state = GuestKey.parse(guest.key), guest.node.state
        if guest.name in self.running:
            before = state.find(key)
            assert before, f"{guest.name} runs, and has lost its record"
            assert before.state is State.PUBLISHED
            self._running.stop(guest)
            # A sync that saw it run may give it a record without ports, until it asks again.
            after = state.find(key)
            assert not after or not after.guest.ports, f"{guest.name} has stopped, and has ports"
            self.running.remove(guest.name)
        else:
            self._running.start(guest)
            self.running.add(guest.name)
        self.calls += 1


def test_a_sync_of_many_guests_ends_in_a_storm_of_hooks(
    client: Asker, node: Node, running: RunningGuests
) -> None:
    """150 guests have lost their records; the hooks of 9 others run all the time."""
    for number in range(LOST):
        xml = domain_xml(
            f"lost{number}",
            octet=1000 + number,
            publish=port_forward(f"{10_000 + number}:22"),
            publish_address=f"10.5.5.{100 + number % 100}",
        )
        running.add(f"lost{number}", xml)
    guests = [node.guest(f"web{n}", f"{2200 + n}:22", serves="22/tcp") for n in range(9)]
    storm = Storm(running, guests)
    with ThreadPoolExecutor(WORKERS) as pool:
        workers = [pool.submit(storm.blow, worker) for worker in range(WORKERS)]
        try:
            for _ in range(3):
                before = storm.calls
                sync = running.start_sync()
                _, stderr = sync.communicate(b"")
                assert (b"", 0) == (stderr, sync.wait())
                assert storm.calls > before
        finally:
            storm.over.set()
        for worker in workers:
            worker.result()
    wanted = {f"lost{n}" for n in range(LOST)} | storm.running
    assert {name for name, state in node.states().items() if state == "published"} == wanted
    assert_as_recorded(node)
    for guest in guests:
        wanted_answer = guest.name if guest.name in storm.running else REFUSED
        assert [wanted_answer] == answering(client, 2200 + int(guest.name[3:]))

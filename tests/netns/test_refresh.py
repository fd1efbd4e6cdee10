"""One guest's ports follow its present definition, and nothing is done where nothing differs."""

import re
import time
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.record import State as RecordState
from cgw_hooks.errors import HypervisorError
from cgw_hooks.host.config_file import load_config
from cgw_hooks.host.libvirt_api import Definition
from cgw_hooks.host.nft import Nft
from cgw_hooks.host.ruleset_generation import generation
from cgw_hooks.node.publisher import Publisher
from cgw_hooks.node.reconcile import sync
from cgw_hooks.node.refresh import Refreshed, ask_neighbours, refresh
from tests.lab.flows import tracked_flows
from tests.netns.asker import REFUSED, Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import CLIENT, NODE
from tests.netns.guest import Guest, annotated
from tests.netns.node import Node

pytestmark = pytest.mark.netns

PORT, OTHER_PORT = 2202, 2203
LONGEST_WAIT = 60.0
ANSWERS = f"web1 saw {CLIENT[4]}"
Ask = Callable[[], Definition | None]


@pytest.fixture
def web1(node: Node) -> Guest:
    return node.guest("web1", f"{PORT}:22", serves="22/tcp")


def defined(guest: Guest, xml: str | None = None) -> Definition:
    return Definition("qemu", guest.name, (guest.xml if xml is None else xml).encode())


def key_of(guest: Guest) -> GuestKey:
    return GuestKey.parse(guest.key)


def refreshed(guest: Guest, ask: Definition | Ask | None) -> Refreshed:
    """Refresh the guest by a definition, None where it does not run, or what a function says."""
    node = guest.node
    guest.hooked.append("refresh")  # so that it is stopped at the end

    def call() -> Refreshed:
        publisher = Publisher(load_config(str(node.config_file)), node.state)
        return refresh(publisher, key_of(guest), ask if callable(ask) else lambda: ask)

    return node.namespace.call(call)


def state_of(node: Node) -> object:
    lock = node.runtime / "lock"
    return node.state.version(), node.namespace.call(generation), lock.stat().st_mtime_ns


def test_nothing_is_done_where_nothing_differs(client: Asker, web1: Guest) -> None:
    web1.start()
    before = state_of(web1.node)
    assert not refreshed(web1, defined(web1))
    assert not refreshed(web1, defined(web1, web1.xml.replace("<vcpu>1", "<vcpu>2")))
    assert before == state_of(web1.node)
    assert client.asks(NODE[4], PORT) == ANSWERS


def test_a_changed_annotation(client: Asker, web1: Guest) -> None:
    web1.start()
    done = refreshed(web1, defined(web1, annotated(web1, f"{OTHER_PORT}:22")))
    assert done.published
    assert [port.start for port in done.published.translated] == [OTHER_PORT]
    assert client.asks(NODE[4], OTHER_PORT) == ANSWERS
    assert client.asks(NODE[4], PORT) == REFUSED


def test_an_annotation_that_was_added_while_the_guest_ran(client: Asker, web1: Guest) -> None:
    web1.start(xml=annotated(web1))
    assert not refreshed(web1, defined(web1, annotated(web1)))
    assert client.asks(NODE[4], PORT) == REFUSED
    assert refreshed(web1, defined(web1)).published
    assert client.asks(NODE[4], PORT) == ANSWERS


def test_an_annotation_that_was_removed(client: Asker, web1: Guest) -> None:
    web1.start()
    gone = refreshed(web1, defined(web1, annotated(web1))).withdrawn
    assert gone
    assert gone.guest.name == "web1"
    assert client.asks(NODE[4], PORT) == REFUSED
    assert web1.node.records() == {}


def test_a_guest_that_does_not_run(client: Asker, web1: Guest) -> None:
    web1.start()
    assert refreshed(web1, None).withdrawn
    assert client.asks(NODE[4], PORT) == REFUSED
    assert not refreshed(web1, None)


def test_a_release_before_the_flows_are_deleted_does_not_touch_the_ruleset(web1: Guest) -> None:
    web1.start()
    waiting: list[Callable[[], None]] = []

    def stop() -> tuple[int, int]:
        config = load_config(str(web1.node.config_file))
        publisher = Publisher(config, web1.node.state, later=waiting.append)
        publisher.withdraw(key_of(web1), connections_end=True)
        stopped = generation()
        publisher.release(key_of(web1), connections_end=True)
        return stopped, generation()

    stopped, released = web1.node.namespace.call(stop)
    assert stopped == released
    assert len(waiting) == 2  # those that stopped, and those that release ends
    assert web1.node.records() == {}
    for work in waiting:
        web1.node.namespace.call(work)
    assert web1.node.records() == {}
    assert_as_recorded(web1.node)


def test_a_guest_that_starts_again_before_the_flows_are_deleted_keeps_its_new_connections(
    client: Asker, web1: Guest
) -> None:
    web1.start()
    waiting: list[Callable[[], None]] = []

    def stop() -> None:
        config = load_config(str(web1.node.config_file))
        publisher = Publisher(config, web1.node.state, later=waiting.append)
        publisher.withdraw(key_of(web1), connections_end=True)
        publisher.release(key_of(web1), connections_end=True)

    web1.node.namespace.call(stop)
    assert client.asks(NODE[4], PORT) == REFUSED
    web1.start()
    before = flows_to(web1)
    assert client.asks(NODE[4], PORT) == ANSWERS
    assert flows_to(web1) > before
    after = flows_to(web1)
    for work in waiting:
        web1.node.namespace.call(work)
    assert flows_to(web1) == after


def flows_to(guest: Guest) -> int:
    """The tracked TCP flows to a published port of a guest."""
    flows = tracked_flows(guest.node.namespace).splitlines()
    return sum(" tcp " in flow and f" dport={PORT} " in flow for flow in flows)


def test_a_guest_that_comes_and_goes_during_a_look_costs_no_new_ruleset(web1: Guest) -> None:
    web1.start()
    record = web1.node.state.peek(key_of(web1))
    assert record
    port = record.guest.ports[0]._replace(start=OTHER_PORT, end=OTHER_PORT)
    passing = record.guest._replace(key=GuestKey("qemu", "passing"), uuid="", ports=(port,))

    def look() -> tuple[int, int]:
        config = load_config(str(web1.node.config_file))
        other = Publisher(config, web1.node.state)
        gone: list[int] = []

        class Listing(Nft):
            def list_table(self, table: str) -> str:
                if not gone:
                    other.publish(passing)
                listed = super().list_table(table)
                if not gone:
                    other.release(passing.key, connections_end=True)
                    gone.append(generation())
                return listed

        report = sync(Publisher(config, web1.node.state, nft=Listing()), drivers=())
        assert not report.repaired
        return gone[0], generation()

    before, after = web1.node.namespace.call(look)
    assert before == after
    assert_as_recorded(web1.node)


def test_an_invalid_annotation_changes_no_port(client: Asker, web1: Guest) -> None:
    web1.start()
    wrong = defined(web1, web1.xml.replace('proto="tcp"', 'proto="ftp"'))
    problem = refreshed(web1, wrong).problem
    assert problem
    assert "ftp" in problem.message
    before = state_of(web1.node)
    assert not refreshed(web1, wrong)
    assert before == state_of(web1.node)
    assert client.asks(NODE[4], PORT) == ANSWERS
    assert web1.node.status()["web1"]["problem"]["message"] == problem.message
    assert refreshed(web1, defined(web1)).published
    assert web1.node.states() == {"web1": "published"}


def test_a_port_of_another_guest(client: Asker, web1: Guest) -> None:
    other = web1.node.guest("web2", f"{OTHER_PORT}:22", serves="22/tcp")
    web1.start()
    other.start()
    wrong = defined(web1, annotated(web1, f"{OTHER_PORT}:22"))
    problem = refreshed(web1, wrong).problem
    assert problem
    assert "web2" in problem.message
    assert not refreshed(web1, wrong)
    assert client.asks(NODE[4], PORT) == ANSWERS
    assert client.asks(NODE[4], OTHER_PORT) == f"web2 saw {CLIENT[4]}"
    other.stop()
    assert refreshed(web1, wrong).published
    assert client.asks(NODE[4], OTHER_PORT) == ANSWERS


def test_a_guest_that_is_starting_or_stopping_is_left_to_its_hook(web1: Guest) -> None:
    assert web1.hook("prepare").exit_code == 0
    assert not refreshed(web1, None)
    assert web1.node.state.peek(key_of(web1))
    assert web1.hook("started").exit_code == 0
    assert web1.hook("stopped").exit_code == 0
    assert not refreshed(web1, None)
    record = web1.node.state.peek(key_of(web1))
    assert record
    assert record.state is RecordState.STOPPED


def test_a_guest_that_stops_meanwhile_is_not_published_again(client: Asker, web1: Guest) -> None:
    """Its ports would stay open for ever."""
    web1.start()
    changed = defined(web1, annotated(web1, f"{OTHER_PORT}:22"))
    asked: list[int] = []

    def ask() -> Definition | None:
        asked.append(len(asked))
        if len(asked) == 1:
            web1.stop()
            return changed
        return None

    assert not refreshed(web1, ask)
    assert asked == [0, 1]
    assert client.asks(NODE[4], OTHER_PORT) == REFUSED
    assert web1.node.records() == {}


def test_a_guest_that_starts_meanwhile_is_not_withdrawn(client: Asker, web1: Guest) -> None:
    web1.start()
    answers: list[Definition | None] = [None, defined(web1)]

    def ask() -> Definition | None:
        if len(answers) == 2:
            web1.stop()
            web1.start()
        return answers.pop(0)

    assert not refreshed(web1, ask)
    assert answers == []
    assert client.asks(NODE[4], PORT) == ANSWERS


def test_a_silent_libvirt_changes_nothing(client: Asker, web1: Guest) -> None:
    web1.start()
    before = state_of(web1.node)

    def ask() -> Definition | None:
        raise HypervisorError("libvirt", "it does not answer")

    with pytest.raises(HypervisorError):
        refreshed(web1, ask)
    assert before == state_of(web1.node)
    assert client.asks(NODE[4], PORT) == ANSWERS


def test_a_damaged_record_is_made_anew(client: Asker, web1: Guest) -> None:
    web1.start()
    (path,) = (web1.node.runtime / "guests").iterdir()
    path.write_text("{")
    assert refreshed(web1, defined(web1)).published
    assert client.asks(NODE[4], PORT) == ANSWERS
    assert re.search(r'"state": "published"', path.read_text())


def test_an_address_that_the_guests_agent_reports_is_asked_for(client: Asker, node: Node) -> None:
    """The kernel hears of it from the guest itself, then."""
    guest = node.guest("web1", f"{PORT}:22", serves="22/tcp", addresses="")
    guest.start()
    mac = node.namespace.run(["ip", "-n", guest.wire.namespace.name, "link", "show", "eth0"])
    (own,) = re.findall(r"ether (\S+)", mac.stdout)
    reported = {
        own: [ip_address(text) for text in ("10.5.5.11", CLIENT[4], "127.0.0.1", "fe80::1")]
    }

    def ask() -> None:
        publisher = Publisher(load_config(str(node.config_file)), node.state)
        ask_neighbours(publisher, key_of(guest), reported)

    node.namespace.call(ask)

    def seen() -> list[str]:
        shown = node.namespace.run(["ip", "-4", "neigh", "show", "dev", "guestbr0"]).stdout
        return [line.split()[0] for line in shown.splitlines() if own in line]

    deadline = time.monotonic() + LONGEST_WAIT
    while not seen():
        assert time.monotonic() < deadline
    assert seen() == ["10.5.5.11"]
    assert refreshed(guest, defined(guest)).published
    assert client.asks(NODE[4], PORT) == ANSWERS

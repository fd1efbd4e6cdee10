"""Killed calls: the guest's next call, or a sync, finishes what they left, whenever it was."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest

from tests.full import is_full
from tests.netns.asker import REFUSED, Asker, spoken
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import CLIENT, NODE
from tests.netns.faults import hook_killed_at, sync_killed_at
from tests.netns.guest import DONE, annotated
from tests.netns.node import OUR_TABLE, Node

pytestmark = pytest.mark.netns

TCP, UDP = 2202, 2203
ANSWER = f"web1 saw {CLIENT[4]}"
#: What comes before an operation; what libvirt calls next where that call was killed.
BEFORE = {
    "prepare": [],
    "started": ["prepare"],
    "stopped": ["prepare", "started"],
    "release": ["prepare", "started", "stopped"],
    "reconnect": ["prepare", "started"],
}
AFTER = {
    "prepare": ["prepare"],
    "started": ["reconnect"],
    "stopped": ["release"],
    "release": ["prepare", "started"],
}
#: The steps that must come in this order; between them are folders, and files to be renamed.
ORDER = {
    "prepare": ["open index", "rename guests"],
    "started": ["rename guests", "ruleset", "flows"],
    "stopped": ["rename guests", "ruleset", "flows", "rename guests"],
    "release": ["remove guests", "remove index"],
}
operations = pytest.mark.parametrize("operation", ORDER)


class Disturbed:
    """A guest whose calls are killed while its clients go on asking."""

    def __init__(self, node: Node, client: Asker, until_end: ExitStack) -> None:
        self.node, self._client = node, client
        self.guest = node.guest("web1", f"{TCP}:22", f"{UDP}:22/udp", serves="22/tcp 22/udp")
        self._sender = until_end.enter_context(client.udp_sender(NODE[4], UDP))
        self._undisturbed = {}
        for operation in [*ORDER, *ORDER]:  # the first time makes the table
            assert self.guest.hook(operation) == DONE
            self._undisturbed[operation] = _state(node)
        self._undisturbed["reconnect"] = self._undisturbed["started"]

    def kill_in(
        self, operation: str, *, xml: str | None = None, first: int = 1, every: int = 1
    ) -> Iterator[str]:
        """Have a call killed at its first step, the next time at its second, ... to its end.

        Or at step `first`, and after it at `every` so many.
        """
        for number in count(first, every):
            for earlier in BEFORE[operation]:
                assert self.guest.hook(earlier) == DONE
            self._sender.send("all the time")
            step = hook_killed_at(number, self.guest, operation, xml=xml)
            if not step:
                return
            yield step

    def assert_as_after(self, operation: str) -> None:
        """Files, ruleset and traffic are as where nothing was ever killed."""
        assert self._undisturbed[operation] == _state(self.node)
        if operation in {"started", "reconnect"}:
            assert self._client.asks(NODE[4], TCP) == ANSWER
            self._sender.send()  # takes the refusal of an earlier packet off the socket
            assert spoken(self._sender.exchange("now")) == ANSWER
        else:
            assert self._client.asks(NODE[4], TCP) == REFUSED
            assert not self._sender.exchange(timeout=0.05).answered


@pytest.fixture
def disturbed(node: Node, client: Asker) -> Iterator[Disturbed]:
    with ExitStack() as until_end:
        yield Disturbed(node, client, until_end)


def _state(node: Node) -> tuple[dict[str, Any], str]:
    """Records (whenever they were made), claims and ruleset."""
    files: dict[str, Any] = dict(node.files())
    for path, text in files.items():
        if path.endswith(".json"):
            files[path] = {**json.loads(text), "since": None}
    return files, node.our_table()


def _come_in_order(wanted: list[str], steps: list[str]) -> bool:
    left = iter(steps)
    return all(step in left for step in wanted)


@operations
def test_the_guests_next_call_finishes_one_that_was_killed_at_any_step(
    disturbed: Disturbed, operation: str
) -> None:
    steps = []
    for step in disturbed.kill_in(operation):
        steps.append(step)
        for following in AFTER[operation]:
            assert disturbed.guest.hook(following) == DONE
        disturbed.assert_as_after(AFTER[operation][-1])
        disturbed.guest.stop()
        disturbed.assert_as_after("release")
    assert _come_in_order(ORDER[operation], steps), steps


@operations
def test_a_sync_puts_right_what_a_call_killed_at_any_step_left(
    disturbed: Disturbed, operation: str
) -> None:
    """Libvirt does not answer here: a sync then takes the records for the truth."""
    for _ in disturbed.kill_in(operation):
        disturbed.node.cgw("sync", check=False)
        assert_as_recorded(disturbed.node)
        disturbed.guest.stop()
        disturbed.assert_as_after("release")


def test_prepare_killed_at_any_step_leaves_nobody_a_claim(disturbed: Disturbed) -> None:
    """Libvirt then calls stopped and release; another guest may have the port at once."""
    other = disturbed.node.guest("web2", f"{TCP}:22", f"{UDP}:22/udp")
    for _ in disturbed.kill_in("prepare"):
        disturbed.guest.stop()
        other.start()
        other.stop()
        disturbed.assert_as_after("release")


def test_a_claim_that_a_killed_prepare_left_is_not_its_guests_with_another_annotation(
    disturbed: Disturbed,
) -> None:
    other = disturbed.node.guest("web2", f"{TCP}:22")
    edited = annotated(disturbed.guest, "8080:22")
    for _ in disturbed.kill_in("prepare"):
        disturbed.guest.stop()
        disturbed.guest.start(xml=edited)
        other.start()
        other.stop()
        disturbed.guest.stop(xml=edited)


@pytest.mark.parametrize("following", ["reconnect", "stopped"])
@pytest.mark.parametrize("edited", [["8080:22"], [f"{TCP}:22", "8080:22"], [f"{UDP}:22/udp"]])
def test_a_swap_of_ports_killed_at_any_step_leaves_none_published(
    disturbed: Disturbed, edited: list[str], following: str
) -> None:
    """The annotation was edited while the guest ran, and libvirtd restarted."""
    xml = annotated(disturbed.guest, *edited)
    other = disturbed.node.guest("web2", *edited)
    # In a short run, one of the two kills at the odd steps and the other one at the even ones.
    first = 1 + (len(edited) + (following == "stopped")) % 2
    first, every = (1, 1) if is_full() else (first, 2)
    for _ in disturbed.kill_in("reconnect", xml=xml, first=first, every=every):
        assert disturbed.guest.hook(following, xml=xml) == DONE
        if following == "reconnect":
            assert_as_recorded(disturbed.node, leftovers=True)
        disturbed.guest.stop(xml=xml)
        other.start()  # a claim that is left is nobody's,
        other.stop()
        disturbed.node.cgw("sync", check=False)  # and is gone with the next sync
        disturbed.assert_as_after("release")


def test_a_sync_killed_at_any_step_is_finished_by_the_next(
    disturbed: Disturbed, node: Node
) -> None:
    for operation in ("prepare", "started"):
        assert disturbed.guest.hook(operation) == DONE
    for number in range(1, 100):
        node.nft(f"delete table {OUR_TABLE}\n")
        step = sync_killed_at(number, node)
        node.cgw("sync", check=False)
        disturbed.assert_as_after("started")
        if not step:
            return
    pytest.fail("a sync without end")

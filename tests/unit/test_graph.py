"""``cgw status --graph``: text that Graphviz takes, whatever a guest is called."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from cgw_hooks.commands.graph import graph
from cgw_hooks.core.diagnosis import Diagnosis, Row
from cgw_hooks.core.guest import REMOTE, Guest, GuestKey
from cgw_hooks.core.published_port import PublishedPort
from cgw_hooks.core.record import Record, State

pytestmark = pytest.mark.unit

PORT = PublishedPort("tcp", ip_address("0.0.0.0"), 2202, 2202, 22, ip_address("10.5.5.2"))


def row(name: str, driver: str = "qemu", state: str = "published") -> Row:
    return Row(
        Record(Guest(GuestKey(driver, "u"), name, (PORT,)), State.PUBLISHED, 0.0), PORT, state
    )


def test_a_port_leads_from_the_node_to_the_guest() -> None:
    text = graph(Diagnosis([row("web1")], []), "node1")
    assert '"node1" -> "*:2202/tcp" [style=solid];' in text
    assert '"*:2202/tcp" -> "guest web1" [style=solid, label="10.5.5.2:22"];' in text
    assert "on this node" in text
    assert "on other nodes" not in text


def test_a_guest_of_another_node_stands_apart_and_one_that_stands_by_is_left_out() -> None:
    away = graph(Diagnosis([row("web1", REMOTE)], []), "node1")
    assert "on other nodes" in away
    here = graph(Diagnosis([row("web1"), row("web1", REMOTE, "overridden")], []), "node1")
    assert "on other nodes" not in here


def test_a_name_cannot_leave_its_quotes() -> None:
    text = graph(Diagnosis([row('a" -> "b\\\n')], []), "node1")
    assert r'label="a\" -> \"b\\\\n"' in text


def test_a_port_on_its_way_is_dotted() -> None:
    assert "style=dotted" in graph(Diagnosis([row("web1", state="reserved")], []), "node1")

"""libvirt's operations, each with what it does and whether it may refuse the guest."""

from __future__ import annotations

import pytest

from cgw_hooks.core.operations import DRIVERS, Action, action, ends_connections, may_refuse

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("prepare", Action.RESERVE),
        ("start", Action.NOTHING),
        ("started", Action.PUBLISH),
        ("stopped", Action.WITHDRAW),
        ("release", Action.RELEASE),
        ("migrate", Action.NOTHING),
        ("restore", Action.NOTHING),
        ("reconnect", Action.PUBLISH),
        ("attach", Action.NOTHING),
        ("port-created", Action.NOTHING),
        ("an operation of 2030", Action.NOTHING),
        ("PREPARE", Action.NOTHING),
        ("", Action.NOTHING),
    ],
)
def test_an_operation_does(operation: str, expected: str) -> None:
    assert expected == action(operation)


@pytest.mark.parametrize(
    "operation",
    ["start", "started", "stopped", "release", "migrate", "restore", "reconnect", "unknown", ""],
)
def test_nothing_but_prepare_may_refuse_a_guest(operation: str) -> None:
    # At reconnect a failure kills the running guest; at restore and migrate it loses the move.
    assert not may_refuse(operation)


def test_prepare_may_refuse_a_guest() -> None:
    assert may_refuse("prepare")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("shutdown", True),
        ("destroyed", True),
        ("crashed", True),
        ("failed", True),
        ("migrated", False),
        ("saved", False),
        ("from snapshot", False),
        ("daemon", False),
        ("unknown", False),
        ("-", False),
        ("", False),
        ("a reason of 2030", False),
    ],
)
def test_connections_end_where_the_reason_says_that_the_guest_is_gone(
    reason: str, expected: bool
) -> None:
    assert expected == ends_connections(reason)


def test_every_driver_that_hands_domain_xml_to_its_hooks_is_known() -> None:
    assert {"qemu", "lxc", "libxl"} == set(DRIVERS)

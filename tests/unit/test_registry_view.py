"""What a node knows of the registry: events in any order, its own changes before their event."""

from __future__ import annotations

import pytest

from cgw_hooks.core.registry_value import Keys
from cgw_hooks.core.registry_view import View
from tests.unit.builders import OTHER_UUID, UUID

pytestmark = pytest.mark.unit

KEYS = Keys("/cgw")
NODE1, NODE2, NODE3 = (KEYS.guest(UUID, f"node{n}") for n in (1, 2, 3))
OTHER = KEYS.guest(OTHER_UUID, "node2")


def view(*changes: tuple[str, str | None, int, int]) -> View:
    """The view of node1."""
    made = View(KEYS, "node1")
    made.apply(max((change[3] for change in changes), default=0), changes)
    return made


def put(key: str, modified: int, value: str = "{}") -> tuple[str, str | None, int, int]:
    return key, value, modified, modified


def deleted(key: str, modified: int) -> tuple[str, str | None, int, int]:
    return key, None, 0, modified


def nodes_of(found: View, uuid: str = UUID) -> list[str]:
    """The nodes that have an entry, the newest first."""
    return [entry.node for entry in found.entries(uuid)]


def test_the_newest_entry_counts_whatever_order_the_keys_have() -> None:
    found = view(put(NODE3, 7, "new"), put(NODE2, 5, "old"))
    assert nodes_of(found) == ["node3", "node2"]
    assert (newest := found.remote(UUID)) is not None
    assert newest.value == "new"


def test_a_migration_never_leaves_a_guest_without_an_entry() -> None:
    """Put there, then deleted here, or the other way round: two orders of one pair of hooks."""
    found = view(put(NODE2, 5))
    assert found.apply(6, [put(NODE3, 6)]) == {UUID}
    assert found.apply(7, [deleted(NODE2, 7)]) == {UUID}
    assert nodes_of(found) == ["node3"]
    assert found.apply(8, [deleted(NODE3, 8)]) == {UUID}
    assert list(found.uuids()) == []


def test_an_event_that_comes_after_a_later_change_says_nothing() -> None:
    found = view(put(NODE2, 9, "new"))
    assert found.apply(10, [put(NODE2, 8, "old")]) == set()
    assert found.apply(10, [deleted(NODE2, 7)]) == set()
    assert [entry.value for entry in found.entries(UUID)] == ["new"]


def test_this_nodes_change_is_in_the_view_before_its_event() -> None:
    found = view(put(NODE2, 3))
    found.apply(found.revision, [put(NODE1, 5, "own")])
    assert (own := found.own(UUID)) is not None
    assert own.value == "own"
    assert found.revision == 3, "events up to 5 are still to come"
    assert found.apply(4, [put(OTHER, 4)]) == {OTHER_UUID}
    assert found.apply(5, [put(NODE1, 5, "own")]) == set()
    assert (remote := found.remote(UUID)) is not None
    assert remote.node == "node2"


def test_an_older_event_does_not_bring_back_what_this_node_has_deleted() -> None:
    found = view(put(NODE2, 3))
    found.apply(found.revision, [put(NODE1, 5, "own")])
    found.apply(found.revision, [deleted(NODE1, 7)])
    assert found.apply(5, [put(NODE1, 5, "own")]) == set()
    assert found.own(UUID) is None
    assert found.apply(7, [deleted(NODE1, 7)]) == set()
    found.apply(8, [put(NODE1, 8, "again")])
    assert (own := found.own(UUID)) is not None
    assert own.value == "again"


def test_an_entry_is_as_old_as_its_first_change() -> None:
    found = view(put(NODE1, 3))
    found.apply(found.revision, [put(NODE1, 5, "other ports")])
    found.apply(7, [put(NODE2, 7)])
    assert found.created(UUID) == 3
    found.apply(8, [deleted(NODE1, 8)])
    assert found.created(UUID) == 7


def test_a_change_without_a_difference_is_none() -> None:
    found = view(put(NODE2, 3))
    assert found.apply(4, [deleted(NODE3, 4)]) == set()
    assert list(found.uuids()) == [UUID]


def test_a_snapshot_replaces_everything_and_names_what_differs() -> None:
    found = view(put(NODE2, 3), put(OTHER, 4), put(KEYS.serial, 4), put(f"{KEYS.nodes}node2", 2))
    third = "1" * 8 + UUID[8:]
    changed = found.replace(9, [put(OTHER, 4), put(KEYS.guest(third, "node3"), 9)])
    assert changed == {UUID, third}
    assert (found.revision, found.serial, found.nodes) == (9, 0, {})
    assert found.replace(10, [put(OTHER, 4), put(KEYS.guest(third, "node3"), 9)]) == set()


def test_a_restored_backup_takes_the_revision_back() -> None:
    found = view(put(NODE2, 90, "new"), put(KEYS.serial, 90))
    assert found.replace(12, [put(NODE2, 11, "old"), put(KEYS.serial, 11)]) == {UUID}
    assert (found.revision, found.serial) == (12, 11)
    assert found.apply(13, [put(NODE2, 13, "next")]) == {UUID}
    assert [entry.value for entry in found.entries(UUID)] == ["next"]


def test_a_guest_that_is_read_again_is_replaced_alone() -> None:
    found = view(put(NODE2, 3), put(OTHER, 4))
    assert not found.replace_guest(UUID, [put(NODE2, 3)])
    assert found.replace_guest(UUID, [])
    assert list(found.uuids()) == [OTHER_UUID]
    assert found.replace_guest(UUID, [put(NODE3, 7)])
    assert nodes_of(found) == ["node3"]


def test_the_nodes_that_are_gone_are_those_with_an_entry_and_without_presence() -> None:
    found = view(put(NODE1, 3), put(NODE2, 4), put(NODE3, 5), put(f"{KEYS.nodes}node2", 6))
    assert found.nodes_gone(UUID) == ["node3"]
    found.apply(7, [deleted(f"{KEYS.nodes}node2", 7)])
    assert found.nodes_gone(UUID) == ["node3", "node2"], "never this node itself"
    assert found.nodes_gone(OTHER_UUID) == []


def test_the_serial_only_grows() -> None:
    found = view(put(KEYS.serial, 8))
    found.apply(9, [put(KEYS.serial, 7)])
    assert found.serial == 8


def test_keys_of_another_version_are_noted_as_long_as_they_are_there() -> None:
    key = f"/cgw/v2/guests/{UUID}/node9"
    found = view(put(key, 3), put(NODE2, 4))
    assert (found.unknown, list(found.uuids())) == ({key}, [UUID])
    found.apply(5, [deleted(key, 5)])
    assert found.unknown == set()


def test_keys_that_mean_nothing_name_no_guest_and_no_node() -> None:
    found = view(put("/cgw/v1/guests/web1/node2", 3), put("/cgw/v1/more", 4))
    assert (list(found.uuids()), found.nodes, found.unknown) == (
        [],
        {},
        {KEYS.guests + "web1/node2"},
    )


def test_what_is_saved_makes_the_same_view() -> None:
    found = view(put(NODE1, 3, "a"), put(NODE2, 4, "b"), put(OTHER, 5, "c"))
    again = View(KEYS, "node1")
    again.replace(5, found.all())
    for uuid in (UUID, OTHER_UUID):
        assert again.entries(uuid) == found.entries(uuid)
    assert sorted(again.uuids_of("node2")) == sorted([UUID, OTHER_UUID])

"""The copy of the registry on disk: whole, or not there at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cgw_hooks.host import registry_snapshot
from tests.unit.builders import UUID

if TYPE_CHECKING:
    from pathlib import Path

    from cgw_hooks.core.registry_view import Change

pytestmark = pytest.mark.unit

CHANGES: list[Change] = [
    (f"/cgw/v1/guests/{UUID}/node1", '{"version": 1}', 3, 7),
    (f"/cgw/v1/guests/{UUID}/node2", 'quotes " and\nnewlines, é', 4, 8),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Stands for /var/lib/cgw; not there yet."""
    return tmp_path / "cgw"


@pytest.fixture
def file(folder: Path) -> Path:
    """The file of a good copy."""
    registry_snapshot.write(str(folder), "/cgw", 9, CHANGES)
    (found,) = folder.iterdir()
    return found


def test_it_can_be_read_as_it_was_written(file: Path) -> None:
    found = registry_snapshot.read(str(file.parent), "/cgw")
    assert found == registry_snapshot.Snapshot(9, CHANGES)


def test_only_root_can_read_it(file: Path) -> None:
    modes = [path.stat().st_mode & 0o777 for path in (file.parent, file)]
    assert modes == [0o700, 0o600]


def test_the_next_one_replaces_it(file: Path) -> None:
    registry_snapshot.write(str(file.parent), "/cgw", 10, CHANGES[:1])
    assert registry_snapshot.read(str(file.parent), "/cgw") == (10, CHANGES[:1])
    assert [*file.parent.iterdir()] == [file]


def test_one_that_could_not_be_completed_leaves_the_former(file: Path) -> None:
    """As if the disk were full, or the node lost its power."""
    beside = file.with_name(f"{file.name}.new")
    beside.write_text(file.read_text()[:20])
    assert registry_snapshot.read(str(file.parent), "/cgw") == (9, CHANGES)


def test_bytes_that_are_no_text_survive(folder: Path) -> None:
    """The values of etcd are bytes; its client decodes them so."""
    odd: list[Change] = [(f"/cgw/v1/guests/{UUID}/n", "\udcff", 1, 1)]
    registry_snapshot.write(str(folder), "/cgw", 1, odd)
    assert registry_snapshot.read(str(folder), "/cgw") == (1, odd)


def test_without_a_file_there_is_none(folder: Path) -> None:
    assert registry_snapshot.read(str(folder), "/cgw") is None


def test_that_of_another_cluster_is_none(file: Path) -> None:
    assert registry_snapshot.read(str(file.parent), "/other") is None


HEAD = json.dumps({"version": 1, "prefix": "/cgw", "revision": 9})
DAMAGED = {
    "empty": b"",
    "zeros": bytes(100),
    "no text": b"\xff\xfe",
    "another version": HEAD.replace("1", "2").encode(),
    "no head": json.dumps(CHANGES[0]).encode(),
    "a head that is a number": b"7",
    "no revision": b'{"version": 1, "prefix": "/cgw"}\n',
    "a revision that is no number": HEAD.replace("9", '"x"').encode(),
    "a line cut off": f"{HEAD}\n{json.dumps(CHANGES[0])[:-4]}".encode(),
    "a line with a field too few": f'{HEAD}\n["key", "value", 1]\n'.encode(),
    "a line that is a number": f"{HEAD}\n7\n".encode(),
    "a line that is deep": f"{HEAD}\n{'[' * 100_000}\n".encode(),
    "a revision of a line that is null": f'{HEAD}\n["key", "value", null, 1]\n'.encode(),
    "a revision that is infinite": f'{HEAD}\n["key", "value", Infinity, 1]\n'.encode(),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_one_is_none(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert registry_snapshot.read(str(file.parent), "/cgw") is None

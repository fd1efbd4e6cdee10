"""What the resident process hears of names in folders, from a real kernel."""

import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgw_hooks.host.folder_events import FolderEvents, Names

pytestmark = pytest.mark.netns

NOTHING = Names()
LONGEST_WAIT = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that may come and go, deep below one that is always there."""
    return tmp_path / "lib" / "libvirt" / "dnsmasq"


@pytest.fixture
def events(folder: Path) -> Iterator[FolderEvents]:
    """Everything in the folder from now on."""
    made = FolderEvents([str(folder)])
    yield made
    made.close()


def names(events: FolderEvents) -> set[str]:
    """The names that changed in the one folder; the kernel tells at once."""
    found = events.read()
    assert not found.lost
    assert len({folder for folder, _ in found.changed}) <= 1
    return {name for _, name in found.changed}


def test_what_happens_to_names(folder: Path, events: FolderEvents) -> None:
    folder.mkdir(parents=True)
    names(events)
    assert events.read() == NOTHING
    (folder / "a").write_text("1")
    assert select.select([events], [], [], LONGEST_WAIT)[0] == [events]
    assert events.read() == Names(frozenset({(str(folder), "a")}))
    assert events.read() == NOTHING
    with (folder / "a").open("a") as file:
        file.write("2")
        file.flush()
        assert names(events) == set()
    assert names(events) == {"a"}
    (folder / "virbr0.status.new").write_text("[]")
    (folder / "virbr0.status.new").rename(folder / "virbr0.status")
    assert names(events) == {"virbr0.status.new", "virbr0.status"}
    (folder / "a").unlink()
    (folder / "more").mkdir()
    assert names(events) == {"a", "more"}


def test_reading_wakes_nobody(folder: Path, events: FolderEvents) -> None:
    folder.mkdir(parents=True)
    (folder / "a").write_text("1")
    names(events)
    assert (folder / "a").read_text() == "1"
    (folder / "a").chmod(0o600)
    assert events.read() == NOTHING


def test_a_folder_that_comes_later(folder: Path, events: FolderEvents) -> None:
    for above in (folder.parent.parent, folder.parent):
        above.mkdir()
        assert names(events) == set()
    folder.mkdir()
    assert names(events) == {""}
    (folder / "a").write_text("1")
    assert names(events) == {"a"}


def test_a_folder_that_comes_all_at_once(folder: Path, events: FolderEvents) -> None:
    """Its first file is there before anybody can watch it."""
    folder.mkdir(parents=True)
    (folder / "a").write_text("1")
    assert names(events) == {""}
    (folder / "a").write_text("2")
    assert names(events) == {"a"}


def test_a_folder_that_vanishes_and_comes_again(folder: Path, events: FolderEvents) -> None:
    for above in (folder, folder.parent, folder.parent.parent):
        folder.mkdir(parents=True)
        assert names(events) == {""}
        shutil.rmtree(above)
        assert names(events) == {""}
        assert events.read() == NOTHING


def test_a_folder_that_is_replaced(folder: Path, events: FolderEvents) -> None:
    folder.mkdir(parents=True)
    names(events)
    folder.rename(folder.with_name("old"))
    folder.mkdir()
    assert names(events) == {""}
    (folder.with_name("old") / "a").write_text("1")
    assert names(events) == set()
    (folder / "b").write_text("1")
    assert names(events) == {"b"}


def test_a_vanished_folder_in_which_a_process_still_is(folder: Path, events: FolderEvents) -> None:
    """The kernel tells its end only when the last process has left it."""
    folder.mkdir(parents=True)
    names(events)
    inside = os.open(folder, os.O_RDONLY)
    try:
        folder.rmdir()
        assert names(events) == {""}
        folder.mkdir()
        assert names(events) == {""}
        (folder / "a").write_text("1")
        assert names(events) == {"a"}
    finally:
        os.close(inside)


def test_a_folder_that_is_unmounted(folder: Path, events: FolderEvents) -> None:
    folder.mkdir(parents=True)
    names(events)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    events = FolderEvents([str(folder)])
    try:
        subprocess.run(["umount", str(folder)], check=True)
        assert names(events) == {""}
        (folder / "a").write_text("1")
        assert names(events) == {"a"}
    finally:
        events.close()


def test_a_file_in_place_of_the_folder(folder: Path, events: FolderEvents) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("")
    assert names(events) == set()
    folder.unlink()
    folder.mkdir()
    assert names(events) == {""}


def test_folders_within_each_other(tmp_path: Path) -> None:
    above, below = tmp_path / "libvirt", tmp_path / "libvirt" / "qemu"
    events = FolderEvents([str(below), str(above)])
    try:
        below.mkdir(parents=True)
        assert events.read().changed == {(str(above), ""), (str(below), "")}
        (above / "a").write_text("1")
        (below / "b").write_text("1")
        assert events.read().changed == {(str(above), "a"), (str(below), "b")}
        shutil.rmtree(below)
        assert events.read().changed >= {(str(above), "qemu"), (str(below), "")}
        below.mkdir()
        assert events.read().changed == {(str(above), "qemu"), (str(below), "")}
        (above / "a").write_text("2")
        assert events.read().changed == {(str(above), "a")}
    finally:
        events.close()


def test_other_names_beside_the_folder_are_not_told(folder: Path, events: FolderEvents) -> None:
    (folder.parent.parent.parent / "other").mkdir()
    assert events.read() == NOTHING
    folder.mkdir(parents=True)
    names(events)
    (folder.parent / "other").mkdir()
    assert events.read() == NOTHING


def test_any_name_can_be_told(folder: Path, events: FolderEvents) -> None:
    folder.mkdir(parents=True)
    names(events)
    strange = b"\xff\n\x1b"
    Path(os.fsdecode(os.path.join(os.fsencode(folder), strange))).write_text("")
    assert names(events) == {os.fsdecode(strange)}


def test_missed_changes_are_told(folder: Path, events: FolderEvents) -> None:
    folder.mkdir(parents=True)
    names(events)
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(most // 2 + 1):
        (folder / str(number)).write_text("")
    found = events.read()
    while found and not found.lost:
        found = events.read()
    assert found.lost
    while events.read():
        pass
    (folder / "a").write_text("1")
    assert names(events) == {"a"}


def test_a_folder_that_comes_and_goes_all_the_time(folder: Path, events: FolderEvents) -> None:
    """At the end it is watched, whatever came in between."""
    folder.parent.mkdir(parents=True)

    def change() -> None:
        for _ in range(300):
            folder.mkdir()
            (folder / "a").write_text("")
            shutil.rmtree(folder)
        folder.mkdir()

    changer = threading.Thread(target=change)
    changer.start()
    while changer.is_alive():
        events.read()
    changer.join()
    while events.read():
        pass
    (folder / "last").write_text("")
    deadline = time.monotonic() + LONGEST_WAIT
    while "last" not in names(events):
        assert time.monotonic() < deadline

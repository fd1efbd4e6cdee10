"""The node's records and their index, in a folder of the test's own."""

from __future__ import annotations

import os
import time
from itertools import combinations
from typing import TYPE_CHECKING

import pytest

from cgw_hooks.core.guest import REMOTE, XL, Guest, GuestKey
from cgw_hooks.core.parse.fields import parse_name
from cgw_hooks.core.record import Record
from cgw_hooks.core.record import State as GuestState
from cgw_hooks.errors import PortConflict, RecordError
from cgw_hooks.host.state.lock import LockTimeout
from cgw_hooks.host.state.state import State
from cgw_hooks.node.ports import refuse_conflict
from tests.unit.builders import OTHER_UUID, UUID, guest, is_one_line, port, random_claims

if TYPE_CHECKING:
    from pathlib import Path

    from cgw_hooks.core.published_port import PublishedPort

pytestmark = pytest.mark.unit

KEY = GuestKey("qemu", UUID)
OTHER_KEY = GuestKey("qemu", OTHER_UUID)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Stands for /run/cgw; not there yet."""
    return tmp_path / "run"


@pytest.fixture
def state(folder: Path) -> State:
    return State(str(folder))


def record(
    *ports: PublishedPort, key: GuestKey = KEY, state: GuestState = GuestState.PUBLISHED
) -> Record:
    return Record(Guest(key, "web1", ports or (port(80),), UUID), state, 1.0)


def rebuild(state: State, records: list[Record]) -> None:
    state.mend_index(state.index_faults(records))


def files(folder: Path) -> set[str]:
    """All files, without the lock."""
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    return found - {"lock"}


def conflict(state: State, *ports: PublishedPort) -> str:
    """Why another guest cannot have these ports; empty: it can."""
    other = Guest(OTHER_KEY, "web2", ports, OTHER_UUID)
    try:
        refuse_conflict(state, other)
    except PortConflict as error:
        return str(error)
    return ""


# -- records -------------------------------------------------------------------------------------


def test_what_was_written_is_found_and_after_its_removal_nothing_is_left(
    state: State, folder: Path
) -> None:
    assert state.find(KEY) is None
    state.write(record(), None)
    assert record() == state.find(KEY)
    assert state.has(KEY)
    assert [KEY] == state.keys()
    state.remove(KEY, record())
    assert (None, False, []) == (state.find(KEY), state.has(KEY), state.keys())
    assert set() == files(folder)


def test_a_record_replaces_the_one_before_with_its_claims(state: State, folder: Path) -> None:
    state.write(record(port(80), port(81)), None)
    state.write(record(port(81), port(82)), record(port(80), port(81)))
    assert record(port(81), port(82)) == state.find(KEY)
    held = [str(claim) for _, claim, _ in state.holders([port((1, 65535)).claim])]
    assert ["*:81/tcp", "*:82/tcp"] == sorted(held)
    assert 3 == len(files(folder))


def test_to_remove_what_is_not_there_is_no_error(state: State) -> None:
    state.remove(KEY, None)
    state.remove(KEY, record())


@pytest.mark.parametrize("text", ["", "{", '{"version": 1}', "\udcff"])
def test_a_record_that_cannot_be_read_is_an_error_that_harms_no_other(
    state: State, folder: Path, text: str
) -> None:
    state.write(record(), None)
    state.write(record(port(81), key=OTHER_KEY), None)
    path = folder / f"guests/{KEY}.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RecordError) as caught:
        state.find(KEY)
    assert is_one_line(str(caught.value))
    assert str(caught.value).startswith(f"{path}: the record cannot be read (")
    assert state.peek(KEY) is None
    assert state.has(KEY)
    found, errors = state.all()
    assert ({OTHER_KEY}, {KEY}) == (set(found), set(errors))
    state.remove(KEY, None)
    assert not state.has(KEY)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "web-1",
            "-",
            "remote-web1",
            "..",
            ".",
            ".hidden",
            "a.json",
            "a,b",
            "80-80,0.0.0.0,qemu-x",
        ),
        *("we'b\"1 ", "$(id)", "*", "wéb-网-🦊", "web%2f1", "web_1", "lock", "index"),
        *("x" * 180, "网" * 60),
    ],
)
def test_a_remote_guest_may_have_any_name_that_the_config_takes(state: State, name: str) -> None:
    key = GuestKey(REMOTE, parse_name(name))
    every = record(
        port((1, 65535), at="2001:db8:1111:2222:3333:4444:5555:6666", target="fd00::5"), key=key
    )
    state.write(every, None)
    assert {key: every} == state.all()[0]
    assert [key] == state.keys() == state.keys_of_uuid(UUID)
    (claim,) = every.guest.claims
    assert [(key, claim, claim)] == list(state.holders([claim]))
    state.remove(key, every)
    assert ([], []) == (state.keys(), list(state.holders([claim])))


def test_no_two_keys_share_a_record(state: State) -> None:
    keys = [
        GuestKey(*parts)
        for parts in ((REMOTE, "web"), (REMOTE, "web_"), (REMOTE, "web-"), ("qemu", "web"))
    ]
    for number, key in enumerate(keys, start=1):
        state.write(record(port(number), key=key), None)
    for number, key in enumerate(keys, start=1):
        assert record(port(number), key=key) == state.find(key)


# -- versions, and the folder --------------------------------------------------------------------


def test_the_version_is_another_one_after_each_change_and_only_then(state: State) -> None:
    seen = [state.version()]
    for new, old in ((record(), None), (record(), record()), (record(key=OTHER_KEY), None)):
        state.write(new, old)
        seen.append(state.version())
    assert all(one != other for one, other in combinations(seen, 2))
    state.all()
    rebuild(state, [record(), record(key=OTHER_KEY)])
    assert seen[-1] == state.version()
    state.remove(OTHER_KEY, None)
    assert state.version() != seen[-1]


def test_the_version_tells_of_a_guest_that_came_and_went_in_the_meantime(state: State) -> None:
    state.write(record(), None)
    before = state.version()
    time.sleep(0.02)  # twice the coarsest step of the kernel's file times (CONFIG_HZ=100)
    state.write(record(key=OTHER_KEY), None)
    state.remove(OTHER_KEY, None)
    assert state.version() != before


def test_a_half_written_record_is_none_and_the_next_one_takes_its_place(
    state: State, folder: Path
) -> None:
    state.write(record(), None)
    (folder / "record.new").write_text('{"version": 2, "dri', encoding="ascii")
    assert [KEY] == state.keys()
    state.write(record(port(81)), record())
    assert record(port(81)) == state.find(KEY)
    assert "record.new" not in files(folder)


def test_clear_leaves_the_lock_alone(state: State, folder: Path) -> None:
    with state.locked():
        state.write(record(), None)
        state.clear()
    assert ([], {}, set()) == (state.keys(), state.all()[0], files(folder))
    assert ["lock"] == [path.name for path in folder.rglob("*")]
    state.clear()
    state.write(record(), None)
    assert record() == state.find(KEY)


def test_a_folder_that_others_can_write_to_is_not_used(state: State, folder: Path) -> None:
    folder.mkdir()
    (folder / "guests").mkdir()
    (folder / "guests").chmod(0o777)
    with pytest.raises(RecordError, match="can write to it; remove it, or run: chown root"):
        state.write(record(), None)
    assert set() == files(folder)


def test_a_link_in_the_place_of_the_folder_is_not_followed(state: State, folder: Path) -> None:
    folder.mkdir()
    (folder.parent / "theirs").mkdir()
    (folder / "guests").symlink_to(folder.parent / "theirs")
    with pytest.raises(RecordError):
        state.write(record(), None)
    assert [] == list((folder.parent / "theirs").iterdir())


def test_where_a_file_stands_in_the_way_the_error_says_where(state: State, folder: Path) -> None:
    folder.write_text("", encoding="ascii")
    with pytest.raises(RecordError) as caught:
        state.write(record(), None)
    assert is_one_line(str(caught.value))
    assert str(folder) in str(caught.value)


def test_the_lock_is_nobody_elses_until_it_is_given_back(state: State) -> None:
    held = r"another cgw has held the lock for 0\.01 s; see who: fuser -v"
    with state.locked(), pytest.raises(LockTimeout, match=held), state.locked(0.01):
        pass
    with state.locked(0.01):
        assert [] == state.keys()


def test_what_node_up_changed_is_remembered_until_nothing_is_left(
    state: State, folder: Path
) -> None:
    assert {} == state.gateway_changes()
    state.write_gateway_changes({"sysctls": {"net/ipv4/ip_forward": "0"}})
    assert {"sysctls": {"net/ipv4/ip_forward": "0"}} == state.gateway_changes()
    state.write_gateway_changes({})
    assert ({}, set()) == (state.gateway_changes(), files(folder))


# -- the index -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_holders_of_random_claims_are_found_as_by_a_look_at_all(
    state: State, seed: int
) -> None:
    claims = random_claims(seed, 60)
    records = [
        record(port((c.start, c.end), protocol=c.protocol, at=str(c.address), target=target))
        for c in claims
        for target in ["10.5.5.202" if c.address.version == 4 else "fd00::5"]
    ]
    records = [
        r._replace(guest=r.guest._replace(key=GuestKey(REMOTE, f"web{n}")))
        for n, r in enumerate(records)
    ]
    rebuild(state, records)
    for wanted in random_claims(seed + 100, 60):
        expected = {
            (r.key, held, wanted)
            for r in records
            for held in r.guest.claims
            if held.overlaps(wanted)
        }
        found = list(state.holders([wanted]))
        assert expected == set(found)
        assert len(expected) == len(found)


def test_a_guest_is_refused_by_the_name_of_who_has_its_port(state: State) -> None:
    state.write(record(port((80, 200))), None)
    assert 'guest "web2": port *:90/tcp is published by guest "web1"' in conflict(state, port(90))
    assert "" == conflict(state, port(90, protocol="udp"), port(201))


def test_an_entry_that_no_record_confirms_counts_for_nothing(state: State, folder: Path) -> None:
    state.write(record(port(80)), None)
    os.unlink(folder / f"guests/{KEY}.json")  # the guest's record went, its entries did not
    assert [KEY] == [key for key, _, _ in state.holders([port(80).claim])]
    assert "" == conflict(state, port(80))


def test_an_entry_that_the_guests_record_contradicts_counts_for_nothing(state: State) -> None:
    state.write(record(port(80)), None)
    state.write(record(port(81)), None)  # as a crash between index and record leaves it
    assert "" == conflict(state, port(80))
    assert "" != conflict(state, port(81))


def test_a_superseded_record_keeps_its_ports_reserved(state: State) -> None:
    """The migration may yet fail, and then the guest goes on with them."""
    state.write(record(port(80), state=GuestState.SUPERSEDED), None)
    assert 'published by guest "web1"' in conflict(state, port(80))


@pytest.mark.parametrize(
    "name",
    ["", ",", "80", "80-80", "80-80,0.0.0.0", "80-x,0.0.0.0,qemu-u", "80-80,web,qemu-u", "~"],
)
def test_a_file_of_somebody_elses_in_the_index_is_no_claim(
    state: State, folder: Path, name: str
) -> None:
    state.write(record(port(80), key=OTHER_KEY), None)
    (bucket,) = (folder / "index/ports/tcp").iterdir()
    (bucket / f"{name}.").touch()
    assert [OTHER_KEY] == [key for key, _, _ in state.holders([port(80).claim])]


def test_the_index_tells_under_which_other_keys_a_guest_is_known(state: State) -> None:
    device = GuestKey(XL, "vif3.0")
    state.write(record(port(80), key=device), None)
    state.write(record(port(81)), None)
    assert [device] == state.keys_of_uuid(UUID)
    assert [] == state.keys_of_uuid(OTHER_UUID) == state.keys_of_uuid("")


def test_only_a_guest_with_elements_needs_its_bridges(state: State) -> None:
    bridged = record()._replace(guest=guest(port(80))._replace(network_bridges=("virbr0",)))
    reserved = bridged._replace(state=GuestState.RESERVED)
    state.write(reserved, None)
    assert [] == state.users_of_bridge("virbr0")
    state.write(bridged, reserved)
    assert [KEY] == state.users_of_bridge("virbr0")
    assert [] == state.users_of_bridge("virbr1")
    state.write(bridged._replace(state=GuestState.STOPPED), bridged)
    assert [] == state.users_of_bridge("virbr0")


def test_rebuild_makes_the_index_what_the_records_say(state: State, folder: Path) -> None:
    one, two = record(port((80, 200))), record(port(81, protocol="udp"), key=OTHER_KEY)
    state.write(one, None)
    state.write(two, None)
    whole = files(folder)
    (folder / "index/ports/tcp/9").mkdir(parents=True)
    (folder / "index/ports/tcp/9/600-600,0.0.0.0,qemu-gone").touch()
    (bucket,) = (folder / "index/ports/udp").iterdir()
    (lost,) = bucket.iterdir()
    lost.unlink()
    rebuild(state, [one, two])
    assert whole == files(folder)
    assert not (folder / "index/ports/tcp/9").exists()


def test_rebuild_writes_only_what_differs(state: State, folder: Path) -> None:
    state.write(record(), None)
    before = {path: path.stat().st_ino for path in (folder / "index").rglob("*")}
    rebuild(state, [record()])
    assert before == {path: path.stat().st_ino for path in (folder / "index").rglob("*")}
    rebuild(state, [])
    assert {f"guests/{KEY}.json"} == files(folder)

"""What somebody else removed, changed or broke on the node: the next call or sync puts it back."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.netns.asker import REFUSED, Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS
from tests.netns.conftest import NodeMaker
from tests.netns.faults import owned_table
from tests.netns.guest import DONE, Guest, annotated
from tests.netns.halts import FLOWS, LISTING, halted_cgw
from tests.netns.node import OUR_TABLE, Node
from tests.netns.own_mounts import OwnMounts, own_mounts

pytestmark = pytest.mark.netns

#: Another shape of ours, as a later or earlier version may have left it.
_OTHER_SHAPE = f"""
table {OUR_TABLE} {{
  map published4 {{ type inet_service : ipv4_addr; elements = {{ 2202 : 10.5.5.99 }} }}
  set hairpin {{ type ipv4_addr; }}
  chain prerouting {{
    type filter hook prerouting priority 0;
    tcp dport 2203 drop
  }}
}}
"""
LOSSES = {
    "flushed": "flush ruleset\n",
    "deleted": f"delete table {OUR_TABLE}\n",
    "elements gone": f"flush map {OUR_TABLE} published4\n",
    "other shape": f"delete table {OUR_TABLE}\n{_OTHER_SHAPE}",
}
#: Who puts it right.
HEALERS: dict[str, Callable[[Node], object]] = {
    "another guest's start": lambda node: node.guest("web3", "2204:22").start(),
    "another guest's stop": lambda node: node.guests[-1].stop(),
    "sync": lambda node: node.cgw("sync", check=False),
}


@pytest.fixture
def guests(node: Node) -> list[Guest]:
    """Two with a port each that answers, and one that may stop."""
    made = [node.guest(f"web{n}", f"{2201 + n}:22", serves="22/tcp") for n in (1, 2)]
    made.append(node.guest("web9", "2209:22"))
    for guest in made:
        guest.start()
    return made


def answers(client: Asker) -> list[str]:
    return [client.asks(NODE[4], port).split()[0] for port in (2202, 2203)]


@pytest.mark.parametrize("healer", HEALERS)
@pytest.mark.parametrize("loss", ["flushed", "deleted", "other shape"])
@pytest.mark.usefixtures("guests")
def test_a_lost_table_comes_back_whole(client: Asker, node: Node, loss: str, healer: str) -> None:
    node.nft(LOSSES[loss])
    assert client.is_unanswered(NODE[4], 2202)
    HEALERS[healer](node)
    assert answers(client) == ["web1", "web2"]
    assert_as_recorded(node)


@pytest.mark.usefixtures("guests")
def test_a_dormant_table_is_told_of_until_a_sync(client: Asker, node: Node) -> None:
    node.nft(f"add table {OUR_TABLE} {{ flags dormant; }}\n")
    assert client.is_unanswered(NODE[4], 2202)
    assert f"table {OUR_TABLE} is dormant" in node.cgw("status", check=False).stderr
    HEALERS["sync"](node)
    assert answers(client) == ["web1", "web2"]
    assert_as_recorded(node)


@pytest.mark.usefixtures("guests")
def test_lost_elements_come_back_with_their_guests_stop_or_a_sync(
    client: Asker, node: Node, guests: list[Guest]
) -> None:
    node.nft(LOSSES["elements gone"])
    assert node.status()["web1"]["problem"]
    guests[0].stop()
    assert client.asks(NODE[4], 2203).startswith("web2")
    assert_as_recorded(node)


def test_everybody_elses_tables_stay_as_they_are_in_every_fallback(
    node: Node, guests: list[Guest]
) -> None:
    """The fixtures compare them at the end; here there are some, of all families."""
    foreign = (
        "table arp cgw { chain c { counter; }; }\ntable inet other { set s { type mark; }; }\n"
    )
    fresh = node.foreign_tables()
    node.nft(foreign)
    theirs = node.foreign_tables()
    assert theirs != fresh
    for loss in ("deleted", "other shape", "elements gone"):
        node.nft(LOSSES[loss])
        assert guests[0].hook("reconnect") == DONE
        assert guests[2].hook("reconnect") == DONE
        node.cgw("sync", check=False)
        assert theirs == node.foreign_tables()
        assert_as_recorded(node)
    node.nft("delete table arp cgw; delete table inet other\n")


def test_static_rules_follow_the_config_with_the_next_call(
    client: Asker, node: Node, guests: list[Guest]
) -> None:
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    node.configure(FULL_NAT)
    assert guests[2].hook("reconnect") == DONE
    assert client.asks(NODE[4], 2202) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
    node.configure("")
    assert guests[2].hook("reconnect") == DONE
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert_as_recorded(node)


# -- records, claims, folders ----------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 9}', "\0" * 100])
def test_an_unreadable_record_harms_no_other_guest_and_is_told_of(
    client: Asker, node: Node, guests: list[Guest], content: str
) -> None:
    path = node.runtime / f"guests/{guests[0].key}.json"
    path.write_text(content)
    guests[2].stop()
    node.nft(f"delete table {OUR_TABLE}\n")
    assert guests[1].hook("reconnect") == DONE
    assert client.asks(NODE[4], 2203).startswith("web2")
    status = node.cgw("status", check=False)
    assert (status.returncode, status.stderr.count("\n")) == (1, 1)
    assert str(path) in status.stderr
    # Its own calls cannot stop or kill the guest, and write the record anew.
    assert guests[0].hook("reconnect") == DONE
    assert answers(client) == ["web1", "web2"]
    path.write_text(content)
    guests[0].stop()
    assert client.asks(NODE[4], 2202) == REFUSED
    guests[0].start()
    assert answers(client) == ["web1", "web2"]


def test_a_stale_claim_is_nobodys(node: Node, client: Asker) -> None:
    gone = node.guest("web9", "2202:22")
    gone.start()
    (node.runtime / f"guests/{gone.key}.json").unlink()
    node.guest("web1", "2202:22", serves="22/tcp").start()
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    node.cgw("sync", check=False)
    assert_as_recorded(node)


@pytest.mark.parametrize("wanted", ["2202:22", "192.168.122.11:2202:22", "2200-2203:20"])
def test_of_two_that_took_one_port_while_the_claims_were_lost_a_sync_keeps_the_first(
    client: Asker, node: Node, wanted: str
) -> None:
    """All else comes back, and the second is told who has the port, as at a refused start."""
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web2 = node.guest("web2", wanted, "2222:22", serves="22/tcp")
    web3 = node.guest("web3", "2203:22", serves="22/tcp") if "-" not in wanted else web1
    for guest in {web3.name: web3, "web1": web1}.values():
        guest.start()
    shutil.rmtree(node.runtime / "index")
    for operation in ("prepare", "started"):
        assert web2.hook(operation).exit_code == 0
    node.nft(f"delete table {OUR_TABLE}\n")
    told = node.cgw("sync", check=False).stderr
    assert re.search(r'guest "web2": port \S+:2202/tcp is published by guest "web1"; ', told)
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert web3 is web1 or client.asks(NODE[4], 2203) == f"web3 saw {CLIENT[4]}"
    assert client.asks(NODE[4], 2222) == REFUSED
    row = node.status()["web2"]
    assert (row["state"], 'published by guest "web1"' in row["problem"]["message"]) == (
        "not published",
        True,
    )
    assert_as_recorded(node)
    web1.stop()
    assert web2.hook("reconnect") == DONE
    assert client.asks(NODE[4], 2202) == f"web2 saw {CLIENT[4]}"
    assert client.asks(NODE[4], 2222) == f"web2 saw {CLIENT[4]}"
    assert_as_recorded(node)


def test_a_sync_leaves_index_entries_that_are_right_as_they_are_and_mends_the_others(
    node: Node, guests: list[Guest]
) -> None:
    index = node.runtime / "index"
    right, lost, _ = sorted(path for path in index.rglob("*") if path.is_file())
    made = right.lstat().st_ctime_ns
    lost.unlink()
    wrong = right.with_name(right.name.replace("2202-2202", "2204-2204"))
    wrong.touch()
    (index / "ports/tcp/1").mkdir()
    (index / f"ports/tcp/1/77-77,0.0.0.0,{guests[0].key}").touch()
    (index / "rubbish").write_text("")
    node.cgw("sync", check=False)
    assert made == right.lstat().st_ctime_ns
    assert_as_recorded(node)
    assert not (index / "ports/tcp/1").exists()


@pytest.mark.parametrize("operation", ["started", "reconnect", "stopped", "release"])
def test_a_runtime_folder_that_is_gone_is_no_failure(
    client: Asker, node: Node, operation: str
) -> None:
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web1.start()
    node.runtime.rename(node.folder / "gone")
    assert web1.hook(operation) == DONE
    if operation in {"started", "reconnect"}:
        assert client.asks(NODE[4], 2202).startswith("web1")
        return
    assert node.cgw("sync", check=False).returncode == 1  # libvirt does not answer here
    assert client.asks(NODE[4], 2202) == REFUSED


@pytest.mark.parametrize("what", ["world-writable", "group-writable", "somebody's", "a link"])
def test_an_unsafe_runtime_folder_is_refused(client: Asker, node: Node, what: str) -> None:
    """Records become rules of the host: a folder that others can write to is not trusted."""
    node.runtime.mkdir(mode=0o700)
    if what == "somebody's":
        os.chown(node.runtime, 65534, 65534)
    elif what == "a link":
        node.runtime.rename(node.folder / "elsewhere")
        node.runtime.symlink_to(node.folder / "elsewhere")
    else:
        node.runtime.chmod(0o777 if what == "world-writable" else 0o770)
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    for operation in ("prepare", "started", "stopped", "release"):
        assert web1.hook(operation).exit_code == 0
        assert client.asks(NODE[4], 2202) == REFUSED
    refused = node.cgw("sync", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (6, 1)
    assert f"{node.runtime}: others than" in refused.stderr
    assert (node.files(), node.our_table()) == ({}, "")


@pytest.mark.parametrize("what", ["world-writable", "somebody's"])
@pytest.mark.parametrize("operation", ["stopped", "release"])
def test_a_guest_that_stops_is_closed_although_the_folder_has_become_unsafe(
    client: Asker, node: Node, mounts: OwnMounts, what: str, operation: str
) -> None:
    web1 = node.guest("web1", "2202:22", "2203:22/udp", serves="22/tcp 22/udp")
    web2 = node.guest("web2", "2204:22", serves="22/tcp")
    web1.start()
    web2.start()
    with client.udp_sender(NODE[4], 2203) as sender:
        assert sender.exchange().guest == "web1"
        if what == "somebody's":
            os.chown(node.runtime, 65534, 65534)
        else:
            node.runtime.chmod(0o777)
        assert mounts.hook(web1, operation) == DONE
        assert client.asks(NODE[4], 2202) == REFUSED
        assert not sender.exchange(timeout=0.5).answered
    assert client.asks(NODE[4], 2204).startswith("web2")
    said = f"{node.runtime}: others than the user who runs cgw"
    assert said in mounts.syslog()
    shown = node.cgw("status", check=False)
    assert shown.returncode == 1
    assert any(line.startswith(f"cgw: {said}") for line in shown.stderr.splitlines())
    os.chown(node.runtime, 0, 0)
    node.runtime.chmod(0o700)
    for guest in (web1, web2):
        guest.stop()
    assert client.asks(NODE[4], 2204) == REFUSED


def test_after_nft_failed_at_started_a_sync_heals(client: Asker, node: Node) -> None:
    """The record's problem goes where libvirt says that the guest runs, or with its next call."""
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    with owned_table(node):
        web1.hook("prepare")
        assert web1.hook("started").exit_code == 0
        assert node.states() == {"web1": "failed"}
    node.cgw("sync", check=False)
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert web1.hook("reconnect") == DONE
    assert node.states() == {"web1": "published"}


def test_the_ruleset_after_a_flush_and_a_config_change_is_the_new_one(
    make_node: NodeMaker, client: Asker
) -> None:
    node = make_node(FULL_NAT)
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web1.start()
    node.nft("flush ruleset\n")
    node.configure("")
    assert web1.hook("reconnect") == DONE
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert_as_recorded(node)


# -- a sync and a guest that restarts beside it ----------------------------------------------


def remote_entry(port: int) -> str:
    """Web1 as a guest of another node."""
    return (
        '[[remote-guest]]\nname = "web1"\naddress = "10.5.5.11"\n'
        f'publish = ["{port}:22/udp", "{port}:22"]\n'
    )


def test_a_guest_that_comes_back_while_a_sync_withdraws_it_keeps_its_record(
    client: Asker, make_node: NodeMaker
) -> None:
    """The first sync has withdrawn it and is about to delete its flows; then it ends."""
    node = make_node(remote_entry(2202))
    node.guest("web1", serves="22/tcp 22/udp")
    node.cgw("sync", check=False)
    with client.udp_sender(NODE[4], 2202) as sender:
        assert sender.exchange().guest == "web1"
        node.configure("")
        with halted_cgw(node, FLOWS, "sync"):
            node.configure(remote_entry(2202))
            node.cgw("sync", check=False)
            assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
        assert node.states() == {"web1": "published"}
        assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
        node.configure("")
        node.cgw("sync", check=False)
        assert client.asks(NODE[4], 2202) == REFUSED
        assert not sender.exchange(timeout=0.5).answered


def test_guests_that_stop_and_start_while_a_sync_looks_are_as_their_last_calls_left_them(
    client: Asker, node: Node, guests: list[Guest]
) -> None:
    """The sync has read the records before; it must look again."""
    web1, web2, _ = guests
    new = node.guest("web4", "2204:22", serves="22/tcp", octet=14)
    with halted_cgw(node, LISTING, "sync"):
        web1.stop()
        new.start()
        assert web2.hook("stopped") == DONE
        web2.hook("release")
        web2.start()
    assert client.asks(NODE[4], 2202) == REFUSED
    assert client.asks(NODE[4], 2203) == f"web2 saw {CLIENT[4]}"
    assert client.asks(NODE[4], 2204) == f"web4 saw {CLIENT[4]}"
    assert set(node.states()) == {"web2", "web4", "web9"}
    web2.stop()
    assert client.asks(NODE[4], 2203) == REFUSED


# -- records that cannot be written or read --------------------------------------------------


@pytest.fixture
def mounts(node: Node) -> Iterator[OwnMounts]:
    """Where the test can fill /run, and make it read-only."""
    with own_mounts(node) as made:
        yield made


def test_a_guest_that_stops_while_run_is_full_is_closed_and_starts_again(
    client: Asker, node: Node, mounts: OwnMounts
) -> None:
    mounts.make_runtime_small()
    web1 = node.guest("web1", "2202:22", "2203:22/udp", serves="22/tcp 22/udp")
    for operation in ("prepare", "started"):
        assert mounts.hook(web1, operation) == DONE
    with client.udp_sender(NODE[4], 2203) as sender:
        assert sender.exchange().guest == "web1"
        mounts.fill_runtime()
        assert mounts.hook(web1, "stopped").exit_code == 0
        assert client.asks(NODE[4], 2202) == REFUSED
        assert not sender.exchange(timeout=0.5).answered
        assert "it cannot be written: No space left on device" in mounts.syslog()
        assert mounts.hook(web1, "release").exit_code == 0
        # As long as /run is full the guest starts all the same, and the reason is said.
        mounts.fill_runtime()  # the old record is gone, and left its place
        assert mounts.hook(web1, "prepare").exit_code == 0
        assert "No space left on device" in mounts.syslog()
        assert mounts.hook(web1, "stopped").exit_code == 0
        mounts.empty_runtime()
        for operation in ("prepare", "started"):
            assert mounts.hook(web1, operation) == DONE
        assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    for operation in ("stopped", "release"):
        assert mounts.hook(web1, operation) == DONE
    assert client.asks(NODE[4], 2202) == REFUSED


def test_a_guest_that_stops_while_run_is_read_only_is_closed_and_starts_again(
    client: Asker, node: Node, mounts: OwnMounts
) -> None:
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web2 = node.guest("web2", "2203:22", serves="22/tcp")
    for guest in (web1, web2):
        guest.start()
    mounts.make_runtime_read_only()
    for operation in ("stopped", "release"):
        assert mounts.hook(web1, operation).exit_code == 0
        assert "Read-only file system" in mounts.syslog()
        assert client.asks(NODE[4], 2202) == REFUSED
        assert client.asks(NODE[4], 2203) == f"web2 saw {CLIENT[4]}"
    assert mounts.hook(web1, "prepare").exit_code == 0
    assert mounts.hook(web1, "started").exit_code == 0
    mounts.make_runtime_writable()
    web1.start()
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    web1.stop()
    assert client.asks(NODE[4], 2202) == REFUSED


@pytest.mark.parametrize("operation", ["stopped", "release"])
@pytest.mark.parametrize(
    "content", ["", "{", '{"version": 1}', '{"version": 99, "driver": "qemu"}']
)
def test_a_guest_whose_record_cannot_be_read_is_closed_when_it_stops_and_starts_again(
    client: Asker, node: Node, guests: list[Guest], content: str, operation: str
) -> None:
    """Truncated by a crash of the host's kernel, or of another version of cgw-hooks."""
    (node.runtime / f"guests/{guests[0].key}.json").write_text(content)
    assert guests[0].hook(operation).exit_code == 0
    assert client.asks(NODE[4], 2202) == REFUSED
    assert client.asks(NODE[4], 2203) == f"web2 saw {CLIENT[4]}"
    assert guests[0].hook("release").exit_code == 0
    guests[0].start()
    assert answers(client) == ["web1", "web2"]


@pytest.mark.parametrize("content", ["", '{"version": 1}'])
def test_a_guest_that_starts_over_a_record_that_cannot_be_read_is_published(
    client: Asker, node: Node, guests: list[Guest], content: str
) -> None:
    """The host died at once with the guest: no stopped came."""
    (node.runtime / f"guests/{guests[0].key}.json").write_text(content)
    edited = annotated(guests[0], "8080:22")
    assert guests[0].hook("prepare", xml=edited) == DONE
    assert client.asks(NODE[4], 2202) == REFUSED
    assert guests[0].hook("started", xml=edited) == DONE
    assert client.asks(NODE[4], 8080) == f"web1 saw {CLIENT[4]}"
    assert client.asks(NODE[4], 2203) == f"web2 saw {CLIENT[4]}"


@pytest.mark.parametrize("operation", ["stopped", "release"])
@pytest.mark.parametrize("family", [4, 6])
def test_udp_flows_to_a_guest_whose_record_cannot_be_read_end_when_it_stops(
    client: Asker, node: Node, operation: str, family: int
) -> None:
    """What its ports were, the ruleset alone tells: of each kind of element."""
    published = ["2202:22/udp", "2210-2219:2210/udp", f"[{NODE[6]}]:2203:22/udp"]
    if family == 4:
        published[-1] = f"{NODE[4]}:2203:22/udp"
    web1 = node.guest("web1", *published, serves="22/udp 2215/udp", family=family)
    web1.start()
    with ExitStack() as until_end:
        senders = [
            until_end.enter_context(client.udp_sender(NODE[family], port))
            for port in (2202, 2215, 2203)
        ]
        assert [sender.exchange().guest for sender in senders] == ["web1"] * 3
        (node.runtime / f"guests/{web1.key}.json").write_text("")
        assert web1.hook(operation).exit_code == 0
        assert [s.exchange(timeout=0.5).answered for s in senders] == [False] * 3
    assert web1.hook("release").exit_code == 0

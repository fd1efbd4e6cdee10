"""Plain xl guests: what the calls of Xen's vif script do, in whatever order they come."""

import fcntl
import os
from collections.abc import Iterator
from itertools import count

import pytest

from tests.lab import domain
from tests.netns.asker import REFUSED, Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS, WARN
from tests.netns.conftest import NodeMaker
from tests.netns.faults import owned_table
from tests.netns.guest import DONE
from tests.netns.node import OUR_TABLE, Node
from tests.netns.vif import Vif

pytestmark = pytest.mark.netns

INVALID, CONFLICT = 3, 4
OCTET = 11
ANSWER = f"web1 saw {CLIENT[4]}"
BEHIND_FULL_NAT = f"web1 saw {NODE_AMONG_GUESTS[4]}"


@pytest.fixture
def web1(node: Node) -> Vif:
    return wired(node)


def wired(node: Node, words: str = "2202:22 5300:53/udp") -> Vif:
    """A guest on the wire, not yet known to the hook."""
    node.guest("web1", serves="7/tcp-echo 22/tcp 53/udp 80/tcp", octet=OCTET)
    return Vif(node, "web1", OCTET, words)


def is_published(client: Asker, answer: str = ANSWER) -> bool:
    """Whether the guest answers at both of its ports."""
    return {client.asks(NODE[4], 2202), client.asks(NODE[4], 5300, "udp")} == {answer}


# -- it comes, it goes -----------------------------------------------------------------------


def test_ports_come_and_go_with_the_vif(client: Asker, node: Node, web1: Vif) -> None:
    assert web1.online() == DONE
    assert is_published(client)
    assert node.states() == {"web1": "published"}
    assert web1.offline() == DONE
    assert client.asks(NODE[4], 2202) == REFUSED
    assert node.files() == {}


def test_every_call_may_be_repeated(client: Asker, node: Node, web1: Vif) -> None:
    for _ in range(2):
        assert web1.online() == DONE
        assert is_published(client)
    for _ in range(2):
        assert web1.offline() == DONE
        assert client.asks(NODE[4], 2202) == REFUSED
    assert node.files() == {}


def test_offline_alone_takes_nothing_of_anyone(client: Asker, node: Node, web1: Vif) -> None:
    """Xl calls it also for a vif that never was online."""
    web1.online()
    before = node.files(), node.ruleset()
    for other in (Vif(node, "web1", OCTET, domain=7), Vif(node, "web1", OCTET, device=1)):
        assert other.offline() == DONE
    assert (node.files(), node.ruleset()) == before
    assert is_published(client)
    web1.offline()


def test_two_vifs_of_a_guest_are_not_each_other(client: Asker, node: Node, web1: Vif) -> None:
    second = Vif(node, "web1", OCTET, "8080:80", device=1)
    assert [web1.online(), second.online()] == [DONE, DONE]
    assert is_published(client)
    assert second.offline() == DONE
    assert client.asks(NODE[4], 8080) == REFUSED
    assert is_published(client)
    web1.offline()


def test_a_guest_that_libvirt_recorded_is_left_to_libvirt(
    client: Asker, node: Node, web1: Vif
) -> None:
    given = node.guest("web1", "2202:22", octet=OCTET).xml
    for operation in ("prepare", "started"):
        node.cgw("hook", "libxl", "web1", operation, "begin", "-", given=given)
    before = node.files()
    assert web1.online() == DONE
    assert node.files() == before
    for operation in ("stopped", "release"):
        node.cgw("hook", "libxl", "web1", operation, "begin", "-", given=given)
    assert client.asks(NODE[4], 2202) == REFUSED


# -- to this host itself ---------------------------------------------------------------------


def test_a_migration_changes_nothing_that_a_client_could_notice(
    client: Asker, node: Node, web1: Vif
) -> None:
    web1 = Vif(node, "web1", OCTET, "2202:22 2207:7 5300:53/udp")
    web1.online()
    new, table = web1.migrated(), node.our_table()
    with client.tcp_session(NODE[4], 2207) as session, client.udp_sender(NODE[4], 5300) as sender:
        for call in (new.online, web1.offline):
            assert call() == DONE
            assert session.exchange("still there") == "still there"
            assert sender.exchange().answered
            assert is_published(client)
            assert node.our_table() == table
    assert set(node.records()) == {new.key}
    assert new.offline() == DONE
    assert client.asks(NODE[4], 2202) == REFUSED


def test_one_migration_after_the_other(client: Asker, node: Node, web1: Vif) -> None:
    web1.online()
    for _ in range(3):
        old, web1 = web1, web1.migrated()
        assert [web1.online(), old.offline()] == [DONE, DONE]
        assert is_published(client)
        assert_as_recorded(node)
    web1.offline()


@pytest.mark.parametrize("late", [False, True], ids=["in time", "late"])
def test_a_failed_migration_leaves_the_guest_as_it_was(
    client: Asker, node: Node, web1: Vif, late: bool
) -> None:
    """The new vif goes and the old one stays; late: it is not the first attempt."""
    web1.online()
    new, before = web1.migrated(), node.our_table()
    if late:
        assert [new.online(), new.offline()] == [DONE, DONE]
        new = new.migrated()
    with client.udp_sender(NODE[4], 5300) as sender:
        for call in (new.online, new.offline):
            assert call() == DONE
            assert sender.exchange().answered
            assert is_published(client)
    assert set(node.records()) == {web1.key}
    assert node.our_table() == before
    assert_as_recorded(node)
    web1.offline()


@pytest.mark.parametrize("words", ["2203:22", "2202:80 2203:22", "2201-2203:20"])
@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_the_guest_may_say_something_else_by_the_time_it_migrates(
    client: Asker, node: Node, web1: Vif, words: str, fails: bool
) -> None:
    """Its file in guests.d was edited meanwhile."""
    web1.online()
    before = node.our_table()
    new = web1.migrated(words)
    assert new.online() == DONE
    assert client.asks(NODE[4], 2203) == ANSWER
    assert client.is_unanswered(NODE[4], 5300, "udp")
    going, staying = (new, web1) if fails else (web1, new)
    assert going.offline() == DONE
    assert set(node.records()) == {staying.key}
    assert_as_recorded(node)
    if fails:
        assert is_published(client)
        assert client.asks(NODE[4], 2203) == REFUSED
        assert node.our_table() == before
    else:
        assert client.asks(NODE[4], 2203) == ANSWER
        assert client.is_unanswered(NODE[4], 5300, "udp")
    staying.offline()


def test_what_the_old_self_held_alone_is_anybodys_after_the_migration(
    node: Node, web1: Vif
) -> None:
    web1.online()
    new = web1.migrated("2203:22")
    other = Vif(node, "web2", OCTET + 1, "2202:22", domain=9)
    new.online()
    assert other.online().exit_code == CONFLICT  # the migration may yet fail
    web1.offline()
    assert other.online() == DONE
    assert new.offline() == DONE
    assert set(node.records()) == {other.key}
    other.offline()


def test_a_migration_reads_no_other_guests_record(client: Asker, node: Node, web1: Vif) -> None:
    """However many there are: one that is a pipe would hold whoever reads it for ever."""
    web1.online()
    os.mkfifo(node.runtime / "guests/xl-vif9.0.json")
    new = web1.migrated()
    assert [new.online(), web1.offline()] == [DONE, DONE]
    back = new.migrated("2203:22")
    assert [back.online(), back.offline()] == [DONE, DONE]
    assert is_published(client)
    assert new.offline() == DONE
    (node.runtime / "guests/xl-vif9.0.json").unlink()


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_a_migration_mends_a_ruleset_that_was_flushed(
    client: Asker, node: Node, web1: Vif, fails: bool
) -> None:
    web1.online()
    node.nft(f"delete table {OUR_TABLE}\n")
    new = web1.migrated("2203:22")
    assert new.online() == DONE
    assert client.asks(NODE[4], 2203) == ANSWER
    going, staying = (new, web1) if fails else (web1, new)
    node.nft(f"delete table {OUR_TABLE}\n")
    assert going.offline() == DONE
    if fails:
        assert is_published(client)
        assert_as_recorded(node)
    staying.offline()


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_a_migration_killed_at_any_step_is_finished_by_the_next_calls(
    client: Asker, node: Node, fails: bool
) -> None:
    """Xl gives a script 40 s; then it is killed, and offline called for the new vif.

    A call without a record behind it is not even made: that is left to `cgw sync`.
    """
    web1 = wired(node)
    steps = count(1)
    for step in steps:
        web1.online()
        new = web1.migrated("2203:22 2202:22")
        died_online = new.kill_online_at(step)
        going, staying = (new, web1) if fails else (web1, new)
        died_offline = going.kill_offline_at(step)
        assert [staying.online(), going.offline()] == [DONE, DONE]
        node.cgw("sync", check=False)
        assert client.asks(NODE[4], 2202) == ANSWER, (died_online, died_offline)
        assert_as_recorded(node)
        assert staying.offline() == DONE
        assert node.files() == {}, (died_online, died_offline)
        if not died_online and not died_offline:
            break
    assert next(steps) > 5


# -- refused ---------------------------------------------------------------------------------


@pytest.fixture
def rival(node: Node, web1: Vif) -> Iterator[Vif]:
    """Another guest; web1 is published."""
    web1.online()
    yield Vif(node, "web2", OCTET + 1, "8080:80", domain=5)
    web1.offline()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("2202:22", 'port *:2202/tcp is published by guest "web1"'),
        ("8080:80 2202:80", 'port *:2202/tcp is published by guest "web1"'),
        ("2203:22/icmp", "give one of tcp, udp, sctp"),
        ("8080:80 70000:80", "70000"),
        (" ", "names no port"),
    ],
)
def test_a_vif_is_refused_in_one_line_and_nothing_applied(
    client: Asker, node: Node, rival: Vif, words: str, reason: str
) -> None:
    before = node.files(), node.ruleset()
    rival = Vif(node, "web2", OCTET + 1, words, domain=5)
    refused = rival.online()
    assert refused.exit_code == (CONFLICT if "published by" in reason else INVALID)
    assert refused.complaint.startswith('cgw: guest "web2": ')
    assert reason in refused.complaint
    assert refused.complaint.isprintable()
    assert rival.offline() == DONE
    assert (node.files(), node.ruleset()) == before
    assert is_published(client)


@pytest.mark.parametrize("words", ["2203:22/icmp", "2202:22"])
def test_by_policy_it_runs_unpublished_and_the_status_says_why(
    client: Asker, node: Node, rival: Vif, words: str
) -> None:
    node.configure(WARN)
    rival = Vif(node, "web2", OCTET + 1, words, domain=5)
    assert rival.online() == DONE
    row = node.status()["web2"]
    assert row["state"] == "not published"
    assert ("icmp" in row["problem"]["message"]) or ('"web1"' in row["problem"]["message"])
    assert is_published(client)
    assert rival.offline() == DONE
    assert set(node.status()) == {"web1"}


def test_a_new_self_that_is_refused_leaves_the_old_one_alone(
    client: Asker, node: Node, web1: Vif
) -> None:
    web1.online()
    before = node.files(), node.ruleset()
    new = web1.migrated("2203:22/icmp")
    assert new.online().exit_code == INVALID
    assert new.offline() == DONE
    assert (node.files(), node.ruleset()) == before
    assert is_published(client)
    web1.offline()


@pytest.mark.parametrize(
    "listing",
    [
        "",
        "\n\n",
        "nonsense",
        'a/gatewaydev = "cgw',
        'a/gatewaydev = "eth0 cgw 1:1"',
        "backend/vif/1/0/ip = \n" * 1000,
        'a/gatewaydev = "\\x00\\777\\"\n' + "\x7f\udcff",
        'a/ip = "' + "9" * 1_000_000 + '"\n',
    ],
    ids=["empty", "lines", "no listing", "no end", "another's", "no values", "escapes", "1 MB"],
)
def test_a_listing_without_our_words_publishes_nothing(node: Node, web1: Vif, listing: str) -> None:
    given = listing.encode("utf-8", "replace").decode()
    assert web1.online(given) == DONE
    assert node.files() == {}


def test_nft_that_fails_leaves_the_guest_running_and_the_reason_in_the_status(
    client: Asker, node: Node, web1: Vif
) -> None:
    with owned_table(node):
        assert web1.online().exit_code == 0
        assert node.status()["web1"]["problem"]["subject"] == "nftables"
    assert web1.online() == DONE
    assert is_published(client)
    web1.offline()


def test_a_vif_that_goes_is_closed_although_another_cgw_holds_the_lock(
    client: Asker, node: Node, web1: Vif
) -> None:
    web1.online()
    with open(node.runtime / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert web1.offline() == DONE
    assert client.asks(NODE[4], 2202) == REFUSED
    assert web1.offline() == DONE


# -- also known as a guest of another node ---------------------------------------------------


def annotation(port: int) -> str:
    """A file of guests.d with the guest's address: it is published on every node."""
    return domain.publish_element(
        f'<cgw:portForward proto="tcp"><cgw:range start="{port}" to="22"/></cgw:portForward>',
        "10.5.5.11",
    )


@pytest.fixture
def filed(make_node: NodeMaker) -> Iterator[Node]:
    """A node whose guests.d says that web1 publishes port 2202."""
    node = make_node(FULL_NAT)
    files = node.folder / "guests.d"
    files.mkdir()
    (files / "web1.xml").write_text(annotation(2202))
    node.cgw("node", "up")
    yield node
    (files / "web1.xml").unlink()
    node.cgw("node", "up")
    node.cgw("node", "down")


@pytest.mark.parametrize("words", ["", "2202:22", "2202:22 8080:80", "2203:22"])
def test_while_a_guest_runs_here_only_what_it_says_itself_counts(
    client: Asker, filed: Node, words: str
) -> None:
    """The file is what it says itself where its vif says nothing."""
    web1 = wired(filed, words)
    away, files = filed.our_table(), filed.files()
    assert client.asks(NODE[4], 2202) == BEHIND_FULL_NAT
    assert web1.online() == DONE
    for port in (2202, 2203, 8080):
        said = f"{port}:" in (words or "2202:22")
        assert client.asks(NODE[4], port) == (BEHIND_FULL_NAT if said else REFUSED)
    assert [row["state"] for row in filed.status_rows()] == [
        *["published"] * max(1, len(words.split())), "overridden",
    ]  # fmt: skip
    assert web1.offline() == DONE
    assert client.asks(NODE[4], 2202) == BEHIND_FULL_NAT
    assert (filed.our_table(), filed.files()) == (away, files)


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_it_counts_through_a_migration_too(client: Asker, filed: Node, fails: bool) -> None:
    web1 = wired(filed, "2203:22")
    away, files = filed.our_table(), filed.files()
    new = web1.migrated()
    going, staying = (new, web1) if fails else (web1, new)
    for call in (web1.online, new.online, going.offline):
        assert call() == DONE
        assert client.asks(NODE[4], 2203) == BEHIND_FULL_NAT
        assert client.asks(NODE[4], 2202) == REFUSED
    assert staying.offline() == DONE
    assert client.asks(NODE[4], 2202) == BEHIND_FULL_NAT
    assert (filed.our_table(), filed.files()) == (away, files)

"""Every hook operation: what it does to a guest's ports, and what it never does to a guest."""

from pathlib import Path

import pytest

from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NONE
from tests.netns.conftest import NodeMaker
from tests.netns.faults import owned_table
from tests.netns.guest import DONE, Guest, annotated
from tests.netns.node import CGW, OUR_TABLE, SCRIPT, Node

pytestmark = pytest.mark.netns

NODE4 = NODE[4]
ANSWER = f"web1 saw {CLIENT[4]}"


@pytest.fixture
def web1(node: Node) -> Guest:
    return node.guest("web1", "2202:22", serves="22/tcp 80/tcp")


@pytest.mark.parametrize("program", [CGW, SCRIPT], ids=["cgw-hook", "hook-script"])
@pytest.mark.parametrize("config", [NONE, FULL_NAT], ids=["no-config", "full-nat"])
def test_from_prepare_to_release(
    client: Asker, make_node: NodeMaker, config: str, program: Path
) -> None:
    node = make_node(config, program)
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    assert client.asks(NODE4, 2202) == REFUSED
    for operation, answer, state in (
        ("prepare", REFUSED, "reserved"),
        ("start", REFUSED, "reserved"),
        ("started", "web1", "published"),
        ("stopped", REFUSED, "stopped"),
    ):
        assert web1.hook(operation) == DONE
        assert client.asks(NODE4, 2202).split()[0] == answer
        assert node.states() == {"web1": state}
    assert web1.hook("release") == DONE
    assert node.files() == {}
    assert node.states() == {}


def test_a_saved_guest_comes_back(client: Asker, web1: Guest) -> None:
    """With virsh save, restore: stopped, release; restore, prepare, start, started."""
    web1.start()
    web1.stop("saved")
    assert client.asks(NODE4, 2202) == REFUSED
    assert web1.hook("restore") == DONE
    web1.start()
    assert client.asks(NODE4, 2202) == ANSWER


@pytest.mark.parametrize("lost", ["nothing", "records", "ruleset"])
def test_reconnect_republishes(client: Asker, node: Node, web1: Guest, lost: str) -> None:
    """Libvirtd was restarted; the guest ran on."""
    web1.start()
    if lost == "records":
        for path in (node.runtime / "guests").iterdir():
            path.unlink()
    if lost == "ruleset":
        node.nft(f"delete table {OUR_TABLE}\n")
    assert web1.hook("reconnect") == DONE
    assert client.asks(NODE4, 2202) == ANSWER
    assert node.states() == {"web1": "published"}


@pytest.mark.parametrize("operation", ["restore", "migrate", "start", "attach", "sausage", "", "-"])
@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_other_operations_do_nothing(
    client: Asker, node: Node, web1: Guest, operation: str, running: bool
) -> None:
    if running:
        web1.start()
    before = node.files(), node.ruleset()
    assert web1.hook(operation) == DONE
    assert (node.files(), node.ruleset()) == before
    assert client.asks(NODE4, 2202) == (ANSWER if running else REFUSED)


def test_stop_takes_away_what_was_added_whatever_the_definition_says_by_then(
    client: Asker, node: Node, web1: Guest
) -> None:
    """Virsh metadata --live edits show in the later calls."""
    web1.start()
    edited = annotated(web1, "2203:22", "2204-2210:22/udp")
    web1.stop(xml=edited)
    assert client.asks(NODE4, 2202) == REFUSED
    assert node.files() == {}


def test_reconnect_swaps_to_an_edited_annotation(client: Asker, node: Node, web1: Guest) -> None:
    web1.start()
    edited = annotated(web1, "2203:22", "8080:80")
    assert web1.hook("reconnect", xml=edited) == DONE
    assert client.asks(NODE4, 2202) == REFUSED
    assert client.asks(NODE4, 2203) == ANSWER
    assert client.asks(NODE4, 8080) == ANSWER
    other = node.guest("web2", "2202:22", serves="22/tcp")  # the old port is anybody's
    other.start()
    assert client.asks(NODE4, 2202) == f"web2 saw {CLIENT[4]}"


@pytest.mark.parametrize("program", [CGW, SCRIPT], ids=["cgw-hook", "hook-script"])
@pytest.mark.parametrize("operation", ["reconnect", "stopped", "release"])
def test_an_annotation_removed_while_it_runs(
    client: Asker, make_node: NodeMaker, operation: str, program: Path
) -> None:
    node = make_node(NONE, program)
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web1.start()
    bare = annotated(web1)
    assert web1.hook(operation, xml=bare) == DONE
    assert client.asks(NODE4, 2202) == REFUSED
    web1.stop(xml=bare)


@pytest.mark.parametrize("operation", ["stopped", "release"])
def test_a_late_call_for_nothing_changes_nothing(
    client: Asker, node: Node, web1: Guest, operation: str
) -> None:
    """A guest that was never published here; another has its ports."""
    other = node.guest("web2", "2202:22", serves="22/tcp")
    other.start()
    before = node.files(), node.ruleset()
    assert web1.hook(operation) == DONE
    assert (node.files(), node.ruleset()) == before
    assert client.asks(NODE4, 2202) == f"web2 saw {CLIENT[4]}"


def test_every_call_may_be_repeated(client: Asker, web1: Guest) -> None:
    for operation, answer in (
        ("prepare", REFUSED),
        ("started", ANSWER),
        ("stopped", REFUSED),
        ("release", REFUSED),
    ):
        for _ in range(2):
            assert web1.hook(operation) == DONE
            assert client.asks(NODE4, 2202) == answer


def test_to_stop_one_guest_harms_no_other(client: Asker, node: Node, web1: Guest) -> None:
    others = [node.guest(f"web{n}", f"{2201 + n}:22", serves="22/tcp") for n in (2, 3)]
    for guest in (web1, *others):
        guest.start()
    web1.stop()
    assert client.asks(NODE4, 2202) == REFUSED
    assert client.asks(NODE4, 2203) == f"web2 saw {CLIENT[4]}"
    assert client.asks(NODE4, 2204) == f"web3 saw {CLIENT[4]}"


def test_a_renamed_or_cloned_guest_is_known_by_its_uuid(node: Node, web1: Guest) -> None:
    """A migrated guest may come under another name (--dname)."""
    web1.start()
    assert node.hook("renamed", "stopped", "-", web1.xml) == DONE
    assert node.hook("renamed", "release", "-", web1.xml) == DONE
    assert node.files() == {}


# -- failing ---------------------------------------------------------------------------------

AFTER_THE_START = ["started", "reconnect", "stopped", "release"]


@pytest.mark.parametrize("operation", AFTER_THE_START)
def test_a_failing_record_fails_no_call_after_prepare(
    node: Node, web1: Guest, operation: str
) -> None:
    """The runtime folder is somebody else's: what is in it could be anybody's records."""
    web1.start()
    node.runtime.chmod(0o777)
    (node.runtime / "guests").chmod(0o777)
    assert web1.hook(operation).exit_code == 0
    node.runtime.chmod(0o700)
    (node.runtime / "guests").chmod(0o700)


@pytest.mark.parametrize("operation", AFTER_THE_START)
def test_a_bad_config_fails_no_call_after_prepare(node: Node, web1: Guest, operation: str) -> None:
    web1.start()
    node.configure("[node\n")
    assert web1.hook(operation).exit_code == 0
    node.configure("")


def test_nft_that_fails_leaves_the_guest_running_and_the_reason_in_the_status(
    client: Asker, node: Node, web1: Guest
) -> None:
    """A table with the flag "owner" belongs to one process: the kernel lets no other change it."""
    assert web1.hook("prepare") == DONE
    with owned_table(node):
        for operation in ("started", "reconnect"):
            assert web1.hook(operation).exit_code == 0
            row = node.status()["web1"]
            assert row["state"] == "failed"
            assert row["problem"]["subject"] == "nftables"
        assert web1.hook("stopped").exit_code == 0
        assert web1.hook("release").exit_code == 0
    assert client.asks(NODE4, 2202) == REFUSED


def test_after_nft_failed_the_next_call_heals(client: Asker, node: Node, web1: Guest) -> None:
    with owned_table(node):
        web1.hook("prepare")
        assert web1.hook("started").exit_code == 0
    assert web1.hook("reconnect") == DONE
    assert client.asks(NODE4, 2202) == ANSWER
    assert node.states() == {"web1": "published"}

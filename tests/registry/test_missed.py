"""What an agent has missed: events, a compacted history, a registry that went back in time."""

import signal
from functools import partial

import pytest

from tests.libvirt.waiting import eventually
from tests.netns.guest import annotated
from tests.registry.cluster import RegistryCluster, is_fine

pytestmark = pytest.mark.registry

#: Events that the kernel keeps for one reader: fs.inotify.max_queued_events.
MOST_EVENTS = 16_384


def test_a_guest_that_stopped_among_too_many_events_leaves_no_key(made: RegistryCluster) -> None:
    guest = made.guest("web1")
    guest.start()
    made.until_open(2201, "web1")
    _, agent = made.agents[1]
    agent.signal(signal.SIGSTOP)
    for number in range(MOST_EVENTS // 2):  # each of them is made, closed and deleted
        file = made.nodes[1].runtime / f"guests/{number}"
        file.touch()
        file.unlink()
    guest.stop("shutdown")
    agent.signal(signal.SIGCONT)
    made.until_closed(2201)
    assert eventually(lambda: made.keys() == {})


def test_a_history_that_was_compacted_behind_a_stopped_agent_is_read_anew(
    made: RegistryCluster,
) -> None:
    for name in ("web1", "web3"):
        made.guest(name).start()
    made.until_open(2201, "web1")
    made.until_open(2203, "web3")
    _, agent = made.agents[2]
    agent.signal(signal.SIGSTOP)
    made.guest("web1").stop("shutdown")
    more = annotated(made.guest("web3"), "2203:22", "2298:22")
    assert made.guest("web3").hook("reconnect", xml=more).exit_code == 0
    assert eventually(lambda: made.answers(2298)[1].startswith("web3"))
    assert eventually(lambda: made.homes() == ["node3"])
    revision = made.etcd.etcdctl("get", "x", "-w", "fields").stdout.partition('"Revision" : ')[2]
    made.etcd.etcdctl("compaction", revision.split()[0])
    made.etcd.kill()  # a watch that stays open would still be told of all changes
    made.etcd.start()
    made.mend()
    made.until_open(2298, "web3")
    made.until_closed(2201)
    assert eventually(partial(is_fine, made.nodes[2]))


def test_after_a_restored_backup_all_that_runs_is_published_and_nothing_else(
    made: RegistryCluster,
) -> None:
    one, other, third = (made.guest(name) for name in ("web1", "web2", "web3"))
    one.start()
    third.start()
    made.until_open(2201, "web1")
    made.until_open(2203, "web3")
    made.etcd.snapshot()
    one.stop("shutdown")
    made.until_closed(2201)
    same = annotated(other, "2201:22", "2299:22")  # with a port that the backup knows as web1's
    other.start(xml=same)
    made.until_open(2299, "web2")
    before = made.keys()
    with made.connecting(2203) as connections:
        made.etcd.restore()
        assert eventually(lambda: made.keys() == before), made.keys()
        for port, name in ((2201, "web2"), (2299, "web2"), (2203, "web3")):
            made.until_open(port, name)
    assert connections.failed == []
    for node in made.nodes.values():
        assert eventually(partial(is_fine, node))
    other.stop("shutdown", xml=same)

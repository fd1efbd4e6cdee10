"""What a follower of changes is given, and what ends it."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cgw_hooks.core.etcd.values import Delete, KeyValue, Put
from cgw_hooks.core.node_config import Registry
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.client import Etcd
from cgw_hooks.host.etcd.watch import Watch
from tests.lab.etcd import EtcdCluster
from tests.lab.etcd_member import CLIENT_PORT, PEER_PORT
from tests.libvirt.waiting import eventually
from tests.registry.conftest import ClientMaker, FollowerMaker

pytestmark = [pytest.mark.registry, pytest.mark.on_both_suites]


def test_changes_come_in_their_order_and_with_their_revisions(
    cluster: EtcdCluster, client: Etcd, follow: FollowerMaker
) -> None:
    start = client.list("/cgw/a").revision + 1
    follower = follow(cluster.config(), "/cgw/", start)
    client.commit([Put("/cgw/a", "1")])
    client.commit([Put("/elsewhere", "1")])
    client.commit([Put("/cgw/a", "2"), Put("/cgw/b", "")])
    client.commit([Delete("/cgw/a")])
    follower.wait_for(start + 3)
    assert [
        KeyValue("/cgw/a", "1", start, start),
        KeyValue("/cgw/a", "2", start, start + 2),
        KeyValue("/cgw/b", "", start + 2, start + 2),
        KeyValue("/cgw/a", None, 0, start + 3),
    ] == follower.events


def test_a_watch_goes_on_where_another_one_ended(
    cluster: EtcdCluster, make_client: ClientMaker, follow: FollowerMaker
) -> None:
    start = make_client(cluster.config()).list("/cgw/a").revision + 1

    def write(thread: int) -> list[int]:
        etcd = make_client(cluster.config())
        key = f"/cgw/{thread}"
        return [etcd.commit([Put(key, str(n))], seconds=60).revision for n in range(100)]

    given = []
    with ThreadPoolExecutor(2) as threads:
        written = [threads.submit(write, number) for number in range(2)]
        next_revision = start
        for middle in (start + 50, start + 120, start + 199):
            if next_revision > middle:  # the writers were faster, and may write nothing more
                continue
            follower = follow(cluster.config(), "/cgw/", next_revision)
            follower.wait_for(middle)
            follower.close()
            given += follower.events
            next_revision = follower.batches[-1][0] + 1
    revisions = sorted(revision for done in written for revision in done.result())
    assert revisions == [event.modified for event in given]


def test_a_large_commit_comes_as_one(
    cluster: EtcdCluster, client: Etcd, follow: FollowerMaker
) -> None:
    start = client.list("/cgw/a").revision + 1
    large = "x" * 11_000
    for number in range(4):  # etcd gives what was before the watch in one answer of 5 MiB
        client.commit([Put(f"/cgw/{number}/{key}", large) for key in range(120)], seconds=60)
    follower = follow(cluster.config(), "/cgw/", start)
    follower.wait_for(start + 3)
    assert 4 * 120 == len(follower.events)
    last_of_batches = [events[-1].modified for _, events in follower.batches]
    assert last_of_batches == [revision for revision, _ in follower.batches]
    for _, events in follower.batches:
        for revision in {event.modified for event in events}:
            assert 120 == len([event for event in events if event.modified == revision])


def test_a_watch_of_compacted_revisions_ends_with_an_error(
    cluster: EtcdCluster, client: Etcd, follow: FollowerMaker
) -> None:
    first = client.commit([Put("/cgw/a", "1")]).revision
    last = client.commit([Put("/cgw/a", "2")]).revision
    cluster.etcdctl("compaction", str(last))
    error = follow(cluster.config(), "/cgw/", first).wait_for_end()
    assert "compacted" in str(error)
    later = follow(cluster.config(), "/cgw/", last + 1)
    later.wait_for(client.commit([Put("/cgw/a", "3")]).revision)
    assert ["3"] == [event.value for event in later.events]


def test_closing_ends_a_watch_without_an_error(
    cluster: EtcdCluster, client: Etcd, follow: FollowerMaker
) -> None:
    follower = follow(cluster.config(), "/cgw/", client.list("/cgw/a").revision + 1)
    follower.wait_for(client.commit([Put("/cgw/a", "1")]).revision)
    follower.close()
    assert follower.error is None
    watch = Watch(cluster.config(), "/cgw/", 1)
    watch.close()
    assert [] == list(watch)


def test_a_follower_that_lists_and_watches_again_loses_nothing_when_the_leader_is_killed(
    cluster: EtcdCluster, make_client: ClientMaker
) -> None:
    stop, view = threading.Event(), dict[str, str]()
    acknowledged = dict[str, str]()
    leader = cluster.leader()
    config = cluster.config(of=leader)
    watches = list[Watch]()
    follower = threading.Thread(target=_keep_view, args=(config, view, stop, watches))
    follower.start()
    try:
        client = make_client(config)
        deadline = time.monotonic() + 300
        for number in itertools.count():
            key = f"/cgw/{number % 20}"
            if number == 50:
                leader.kill()
            try:
                client.commit([Put(key, str(number))], seconds=1)
                acknowledged[key] = str(number)
            except RegistryError:
                acknowledged.pop(key, None)
                time.sleep(0.02)
            if number > 100 and len(acknowledged) == 20:
                break
            assert time.monotonic() < deadline
        found = client.list("/cgw/").values
        assert acknowledged.items() <= {value.key: value.value for value in found}.items()
        assert eventually(lambda: {value.key: value.value for value in found} == view)
    finally:
        stop.set()
        while follower.is_alive():  # it may open one more
            for watch in watches:
                watch.close()
            follower.join(0.1)


def _keep_view(
    config: Registry, view: dict[str, str], stop: threading.Event, watches: list[Watch]
) -> None:
    """List and watch, again and again, as the agent does."""
    client = Etcd(config)
    while not stop.is_set():
        try:
            listed = client.list("/cgw/")
            view.clear()
            view.update((value.key, value.value or "") for value in listed.values)
            watches.append(Watch(config, "/cgw/", listed.revision + 1))
            for _, events in watches[-1]:
                view.update((e.key, e.value) for e in events if e.value is not None)
        except RegistryError:
            stop.wait(0.2)
    client.close()


def test_a_watch_ends_when_its_member_is_killed(
    cluster: EtcdCluster, client: Etcd, follow: FollowerMaker
) -> None:
    member = cluster.members[0]
    follower = follow(cluster.config(), "/cgw/", client.list("/cgw/a").revision + 1)
    follower.wait_for(client.commit([Put("/cgw/a", "1")]).revision)
    member.kill()
    error = follower.wait_for_end()
    assert str(member.endpoint) == (error.subject if error else "")


def test_a_watch_ends_when_its_member_has_lost_the_others(
    cluster: EtcdCluster, client: Etcd, follow: FollowerMaker
) -> None:
    member = cluster.followers()[0]
    follower = follow(cluster.config(of=member), "/cgw/", client.list("/cgw/a").revision + 1)
    follower.wait_for(client.commit([Put("/cgw/a", "1")]).revision)
    member.port.silence(PEER_PORT)
    error = follower.wait_for_end()
    assert str(member.endpoint) == (error.subject if error else "")
    again = follow(cluster.config(of=member), "/cgw/", client.list("/cgw/a").revision + 1)
    again.wait_for(client.commit([Put("/cgw/a", "2")], seconds=60).revision)


@pytest.mark.extended
@pytest.mark.parametrize("fault", ["silent path", "cut off", "paused"])
def test_a_watch_ends_when_nothing_comes_from_its_member_any_more(
    cluster: EtcdCluster, make_client: ClientMaker, follow: FollowerMaker, fault: str
) -> None:
    member, other = cluster.followers()
    config, client = cluster.config(of=member), make_client(cluster.config(of=other))
    follower = follow(config, "/cgw/", client.list("/cgw/a").revision + 1)
    follower.wait_for(client.commit([Put("/cgw/a", "1")]).revision)
    if fault == "silent path":
        member.port.silence(CLIENT_PORT)
    elif fault == "cut off":
        member.port.cut_off()
    else:
        member.pause()
    error = follower.wait_for_end()
    assert str(member.endpoint) == (error.subject if error else "")
    again = follow(config, "/cgw/", client.list("/cgw/a").revision + 1)
    again.wait_for(client.commit([Put("/cgw/a", "2")], seconds=60).revision)


@pytest.mark.extended
def test_a_quiet_watch_stays(cluster: EtcdCluster, client: Etcd, follow: FollowerMaker) -> None:
    follower = follow(cluster.config(), "/cgw/", client.list("/cgw/a").revision + 1)
    follower.wait_for(client.commit([Put("/cgw/a", "1")]).revision)
    assert not eventually(lambda: follower.error is not None, within=12)
    follower.wait_for(client.commit([Put("/cgw/a", "2")]).revision)
    assert ["1", "2"] == [event.value for event in follower.events]

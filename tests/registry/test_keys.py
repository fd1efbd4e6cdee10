"""What is written, read and listed, and who wins."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cgw_hooks.core.etcd.values import LONGEST_VALUE, Delete, KeyValue, Put, Unchanged
from cgw_hooks.core.node_config import Registry
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.client import Etcd
from tests.lab.etcd import EtcdCluster
from tests.libvirt.waiting import eventually
from tests.registry.conftest import ClientMaker

pytestmark = [pytest.mark.registry, pytest.mark.on_both_suites]

#: etcd's own limit, --max-txn-ops.
MOST_OPERATIONS = 128
ROUNDS = 100


def test_a_key_that_is_not_there_is_no_error(client: Etcd) -> None:
    found = client.list("/cgw/nothing")
    assert [] == found.values
    assert found.revision > 0
    assert found.cluster != ""


def test_a_key_is_found_as_written_and_with_its_revisions(client: Etcd) -> None:
    first = client.commit([Put("/cgw/a", "1")]).revision
    second = client.commit([Put("/cgw/a", "2"), Put("/cgw/é", "ü")]).revision
    assert [KeyValue("/cgw/a", "2", first, second)] == client.list("/cgw/a").values
    assert [KeyValue("/cgw/é", "ü", second, second)] == client.list("/cgw/é").values
    assert second == client.list("/cgw/a").revision


def test_empty_values_are_values(client: Etcd) -> None:
    revision = client.commit([Put("/cgw/a", "")]).revision
    assert [KeyValue("/cgw/a", "", revision, revision)] == client.list("/cgw/a").values


def test_a_deleted_key_is_gone_and_may_be_deleted_again(client: Etcd) -> None:
    client.commit([Put("/cgw/a", "1"), Put("/cgw/ab", "2")])
    assert client.commit([Delete("/cgw/a")]).succeeded
    assert client.commit([Delete("/cgw/a")]).succeeded
    assert ["/cgw/ab"] == [found.key for found in client.list("/cgw/").values]


def test_a_list_has_all_keys_with_its_prefix_and_no_other(client: Etcd) -> None:
    keys = [f"/cgw/v1/{number:05}" for number in range(2000)]
    for start in range(0, len(keys), MOST_OPERATIONS):
        client.commit([Put(key, f"of {key}") for key in keys[start : start + MOST_OPERATIONS]])
    revision = client.commit([Put("/cgw/v1", "no"), Put("/cgw/v10", "no")]).revision
    listed = client.list("/cgw/v1/")
    assert [(key, f"of {key}") for key in keys] == [(v.key, v.value) for v in listed.values]
    assert revision == listed.revision
    assert client.list("/cgw/v1").cluster == listed.cluster


def test_an_empty_list_has_a_revision_too(client: Etcd) -> None:
    revision = client.commit([Put("/cgw/a", "1")]).revision
    assert (revision, []) == client.list("/cgw/v1/")[::2]


def test_a_commit_whose_condition_fails_writes_nothing_and_reads(client: Etcd) -> None:
    first = client.commit([Put("/cgw/a", "1")], [Unchanged("/cgw/a", 0)])
    assert first.succeeded
    late = client.commit(
        [Put("/cgw/a", "2"), Put("/cgw/b", "2")],
        [Unchanged("/cgw/b", 0), Unchanged("/cgw/a", 0)],
        ["/cgw/a", "/cgw/b"],
    )
    assert (False, first.revision) == late[:2]
    assert [KeyValue("/cgw/a", "1", first.revision, first.revision)] == late.values
    assert [] == client.list("/cgw/b").values
    assert client.commit([Delete("/cgw/a")], [Unchanged("/cgw/a", first.revision)]).succeeded
    assert [] == client.list("/cgw/a").values


def test_of_two_commits_with_one_condition_exactly_one_succeeds(
    cluster: EtcdCluster, make_client: ClientMaker
) -> None:
    both_ready = threading.Barrier(2)

    def claim(me: str, config: Registry) -> list[bool]:
        etcd, won = make_client(config), []
        for number in range(ROUNDS):
            key = f"/cgw/{number}"
            both_ready.wait(300)
            done = etcd.commit([Put(key, me)], [Unchanged(key, 0)], [key], seconds=60)
            assert done.succeeded or done.values[0].value != me
            won.append(done.succeeded)
        return won

    with ThreadPoolExecutor(2) as threads:
        configs = [cluster.config(of=member) for member in cluster.members[:2]]
        ones, others = threads.map(claim, "ab", configs)
    assert [True] * ROUNDS == [one is not other for one, other in zip(ones, others, strict=True)]


def test_more_operations_than_etcd_takes_are_refused(client: Etcd) -> None:
    writes = [Put(f"/cgw/{number}", "") for number in range(MOST_OPERATIONS + 1)]
    assert client.commit(writes[1:]).succeeded
    with pytest.raises(RegistryError, match="too many operations") as refused:
        client.commit(writes)
    assert not refused.value.is_unknown
    assert [] == client.list("/cgw/0").values


def test_bytes_that_are_not_utf8_come_as_surrogates_and_go_back_as_they_were(
    cluster: EtcdCluster, client: Etcd
) -> None:
    client.commit([Put("/cgw/\udcff", '{"\udc80": 1}'), Put("/cgw/z", "fine")])
    raw = cluster.etcdctl("get", "/cgw/", "--prefix", "-w", "json").stdout
    assert '"L2Nndy//"' in raw  # b"/cgw/\xff"
    assert '"eyKAIjogMX0="' in raw  # b'{"\x80": 1}'
    values = client.list("/cgw/").values
    assert [("/cgw/z", "fine"), ("/cgw/\udcff", '{"\udc80": 1}')] == [v[:2] for v in values]
    client.commit([Delete(values[1].key)])
    assert ["/cgw/z"] == [found.key for found in client.list("/cgw/").values]


def test_a_huge_value_is_cut_off_and_harms_no_other(client: Etcd) -> None:
    client.commit([Put("/cgw/b", "x" * (1 << 20)), Put("/cgw/a", "1"), Put("/cgw/c", "3")])
    one, huge, three = client.list("/cgw/").values
    assert ("1", "3") == (one.value, three.value)
    assert "x" * LONGEST_VALUE == huge.value


@pytest.mark.extended
def test_more_huge_values_than_one_answer_may_have_harm_no_other(client: Etcd) -> None:
    for number in range(20):
        client.commit([Put(f"/cgw/{number:02}", "x" * (1_400 << 10))], seconds=60)
        client.commit([Put(f"/cgw/{number:02}/small", str(number))], seconds=60)
    values = client.list("/cgw/", seconds=300).values
    assert [str(number) for number in range(20)] == [value.value for value in values[1::2]]
    assert {LONGEST_VALUE} == {len(value.value or "") for value in values[::2]}


def test_the_keys_of_a_lease_go_when_it_is_revoked(cluster: EtcdCluster, client: Etcd) -> None:
    lease = client.grant(600)
    client.commit([Put("/cgw/a", "1", lease), Put("/cgw/b", "2")])
    assert client.keep_alive(lease)
    assert ["/cgw/a", "/cgw/b"] == [found.key for found in client.list("/cgw/").values]
    cluster.etcdctl("lease", "revoke", f"{lease:x}")
    assert ["/cgw/b"] == [found.key for found in client.list("/cgw/").values]
    assert not client.keep_alive(lease)
    with pytest.raises(RegistryError, match="lease not found"):
        client.commit([Put("/cgw/a", "1", lease)])


@pytest.mark.extended
def test_the_keys_of_a_lease_stay_while_it_is_renewed_and_go_when_it_is_not(client: Etcd) -> None:
    lease = client.grant(5)
    client.commit([Put("/cgw/a", "1", lease)])
    until = time.monotonic() + 8
    while time.monotonic() < until:
        assert client.keep_alive(lease)
        time.sleep(0.5)
    assert ["1"] == [found.value for found in client.list("/cgw/a").values]
    assert eventually(lambda: client.list("/cgw/a").values == [])


def test_each_member_tells_of_itself(cluster: EtcdCluster, client: Etcd) -> None:
    told = client.members()
    assert [member.endpoint for member in cluster.members] == [
        member.endpoint for member in told if not isinstance(member, RegistryError)
    ]
    for member in told:
        assert not isinstance(member, RegistryError)
        assert member.has_leader
        assert () == member.alarms
        assert 2 << 30 == member.quota  # etcd's default
        assert 0 < member.size < 1 << 30


def test_a_short_history_is_not_said_to_be_whole(client: Etcd) -> None:
    assert not client.is_history_whole()


@pytest.mark.extended
def test_a_long_history_is_whole_until_it_is_compacted(
    cluster: EtcdCluster, make_client: ClientMaker
) -> None:
    client = make_client(cluster.config())
    cluster.wipe()
    cluster.start()

    def write(thread: int) -> None:
        etcd = make_client(cluster.config())
        for number in range(1300):
            etcd.commit([Put(f"/cgw/{thread}", str(number))], seconds=60)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    assert client.list("/cgw/0").revision > 10_000
    assert client.is_history_whole()
    cluster.etcdctl("compaction", "5000")
    assert not client.is_history_whole()

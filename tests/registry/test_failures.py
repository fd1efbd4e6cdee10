"""Members that are killed, silent, full or restored: who answers, and what an error says."""

import time
from collections.abc import Iterator

import pytest

from cgw_hooks.core.etcd.values import Put
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.client import Etcd
from tests.lab.etcd import EtcdCluster, open_etcd
from tests.lab.etcd_member import CLIENT_PORT, PEER_PORT, Member
from tests.lab.namespace import namespace
from tests.libvirt.waiting import eventually
from tests.registry.conftest import ClientMaker
from tests.registry.connections import connections

pytestmark = pytest.mark.registry

SMALL_QUOTA = 4 << 20


@pytest.mark.on_both_suites
def test_another_member_answers_for_one_that_is_killed(cluster: EtcdCluster, client: Etcd) -> None:
    first = client.commit([Put("/cgw/a", "1")]).revision
    member = cluster.followers()[0]
    client = Etcd(cluster.config(of=member))
    assert first == client.list("/cgw/a").revision
    member.kill()
    assert first == client.list("/cgw/a").revision
    assert client.commit([Put("/cgw/a", "2")]).succeeded
    told = client.members()
    assert [True, False, False] == [isinstance(one, RegistryError) for one in told]
    assert f"{member.endpoint}: it cannot be reached: Connection refused" in str(told[0])
    client.close()


@pytest.mark.on_both_suites
def test_another_member_answers_for_one_without_a_leader(
    cluster: EtcdCluster, make_client: ClientMaker
) -> None:
    member = cluster.followers()[0]
    client = make_client(cluster.config(of=member))
    first = client.commit([Put("/cgw/a", "1")]).revision
    member.port.silence(PEER_PORT)
    assert eventually(lambda: not _has_leader(client))
    assert first == client.list("/cgw/a", seconds=60).revision
    assert client.commit([Put("/cgw/a", "2")], seconds=60).succeeded


def _has_leader(client: Etcd) -> bool:
    found = client.members()[0]
    return not isinstance(found, RegistryError) and found.has_leader


def test_one_silent_member_leaves_time_for_the_others(
    cluster: EtcdCluster, make_client: ClientMaker
) -> None:
    member = cluster.followers()[0]
    client = make_client(cluster.config(of=member))
    first = client.commit([Put("/cgw/a", "1")]).revision
    member.port.silence(CLIENT_PORT)
    assert first == client.list("/cgw/a", seconds=6).revision
    assert client.commit([Put("/cgw/a", "2")]).succeeded


def test_a_write_that_a_member_does_not_answer_is_unknown_and_not_sent_to_another(
    cluster: EtcdCluster, make_client: ClientMaker
) -> None:
    member = cluster.followers()[0]
    client = make_client(cluster.config(of=member))
    first = client.commit([Put("/cgw/a", "1")]).revision
    member.pause()
    with pytest.raises(RegistryError, match="does not answer in time") as unanswered:
        client.commit([Put("/cgw/a", "2")], seconds=1)
    assert unanswered.value.is_unknown
    assert str(member.endpoint) == unanswered.value.subject
    assert first == client.list("/cgw/a").revision
    assert client.commit([Put("/cgw/a", "3")]).succeeded


@pytest.mark.extended
def test_the_first_member_is_asked_again_after_a_while(
    cluster: EtcdCluster, make_client: ClientMaker
) -> None:
    member = cluster.followers()[0]
    client = make_client(cluster.config(of=member))
    assert {member.port.address} == _asked(client)
    member.kill()
    assert {member.port.address} != _asked(client)
    cluster.start()
    assert eventually(lambda: _asked(client) == {member.port.address})


def _asked(client: Etcd) -> set[str]:
    """The members that this node is connected to once the client has asked one."""
    client.list("/cgw/a")
    return {member for _, member in connections()}


def test_all_members_down_is_said_of_each_and_ends_with_their_return(
    cluster: EtcdCluster, client: Etcd
) -> None:
    first = client.commit([Put("/cgw/a", "1")]).revision
    cluster.kill()
    for ask in (lambda: client.list("/cgw/a"), lambda: client.commit([Put("/cgw/a", "2")])):
        with pytest.raises(RegistryError, match="Connection refused") as refused:
            ask()
        assert not refused.value.is_unknown  # nothing was sent
        assert str(cluster.members[0].endpoint) == refused.value.subject
        assert all(str(member.endpoint) in str(refused.value) for member in cluster.members)
        assert refused.value.cure == "start this member, or mend the network to it"
    cluster.start()
    assert (first, "1") == (client.list("/cgw/a").revision, client.list("/cgw/a").values[0].value)


def test_one_deadline_holds_for_all_endpoints_together(cluster: EtcdCluster, client: Etcd) -> None:
    client.list("/cgw/a")
    for member in cluster.members:
        member.port.silence(CLIENT_PORT)
    started = time.monotonic()
    with pytest.raises(RegistryError, match="does not answer in time"):
        client.list("/cgw/a", seconds=0.3)
    with pytest.raises(RegistryError, match="does not answer in time") as unsent:
        client.commit([Put("/cgw/a", "2")], seconds=0.3)
    assert time.monotonic() - started < 5
    assert not unsent.value.is_unknown


def test_no_leader_is_said_with_a_cure(cluster: EtcdCluster, client: Etcd) -> None:
    first, *others = cluster.members
    client.list("/cgw/a")
    for member in others:
        member.kill()
    assert eventually(lambda: "no leader" in _refusal(client))
    with pytest.raises(RegistryError, match="no leader") as refused:
        client.commit([Put("/cgw/a", "2")])
    assert not refused.value.is_unknown
    assert "most members must run" in str(refused.value)
    assert str(first.endpoint) in str(refused.value)


def _refusal(client: Etcd) -> str:
    try:
        client.list("/cgw/a")
    except RegistryError as error:
        return str(error)
    return ""


@pytest.fixture
def full(suite: str) -> Iterator[tuple[EtcdCluster, Member]]:
    """One member whose quota is small, and full; the test runs on a node."""
    options = (f"--quota-backend-bytes={SMALL_QUOTA}",)
    with namespace("etcd-full-node") as node, open_etcd(suite, 1, options=options) as etcd:
        etcd.join(node)
        with node.entered():
            yield etcd, etcd.members[0]


@pytest.mark.on_both_suites
def test_a_full_member_refuses_writes_with_a_cure_that_cures(
    full: tuple[EtcdCluster, Member], make_client: ClientMaker
) -> None:
    etcd, member = full
    client = make_client(etcd.config())
    lease = client.grant(600)
    client.commit([Put("/cgw/lease", "1", lease)])
    with pytest.raises(RegistryError, match="space exceeded") as refused:
        _fill(client)
    assert str(member.endpoint) == refused.value.subject
    assert not refused.value.is_unknown
    assert "run on a member: etcdctl compact" in refused.value.cure
    (told,) = client.members()
    assert not isinstance(told, RegistryError)
    assert (("NOSPACE",), SMALL_QUOTA) == (told.alarms, told.quota)
    revision = client.list("/cgw/a").revision
    assert client.keep_alive(lease)

    etcd.etcdctl("compact", str(revision))
    etcd.etcdctl("defrag")
    etcd.etcdctl("alarm", "disarm")
    assert client.commit([Put("/cgw/a", "small")]).succeeded
    (told,) = client.members()
    assert not isinstance(told, RegistryError)
    assert () == told.alarms


def _fill(client: Etcd) -> None:
    for _ in range(100):
        client.commit([Put("/cgw/a", "x" * (200 << 10))], seconds=60)


@pytest.mark.on_both_suites
def test_a_restored_backup_is_the_same_cluster_with_a_lower_revision(
    cluster: EtcdCluster, client: Etcd
) -> None:
    client.commit([Put("/cgw/a", "1")])
    cluster.snapshot()
    before = client.commit([Put("/cgw/a", "2"), Put("/cgw/b", "2")])
    assert before.succeeded
    cluster_id = client.list("/cgw/a").cluster
    cluster.restore()
    listed = client.list("/cgw/")
    assert ["1"] == [value.value for value in listed.values]
    assert listed.revision < before.revision
    assert cluster_id == listed.cluster
    assert client.commit([Put("/cgw/a", "3")]).succeeded

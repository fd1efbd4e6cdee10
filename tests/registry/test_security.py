"""TLS, users and tokens: who is let in, and what the error says to whoever is not."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cgw_hooks.core.etcd.values import Delete, Put
from cgw_hooks.core.node_config import Registry
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.client import Etcd
from tests.lab.etcd import PASSWORD, USER, EtcdCluster, open_etcd
from tests.lab.etcd_certificates import MEMBER, NODE, NODE_WITH_CN
from tests.lab.namespace import namespace
from tests.libvirt.waiting import eventually
from tests.registry.conftest import ClientMaker, FollowerMaker
from tests.registry.connections import connections

pytestmark = pytest.mark.registry

TOKEN_SECONDS = 2


@pytest.mark.on_both_suites
def test_a_node_reads_writes_lists_and_follows_what_is_its_own(
    secured: EtcdCluster, make_client: ClientMaker, follow: FollowerMaker
) -> None:
    client = make_client(secured.config())
    start = client.list("/cgw/a").revision + 1
    follower = follow(secured.config(), "/cgw/", start)
    revision = client.commit([Put("/cgw/a", "1")]).revision
    assert ["1"] == [value.value for value in client.list("/cgw/").values]
    lease = client.grant(60)
    assert client.keep_alive(lease)
    assert [] == [member for member in client.members() if isinstance(member, RegistryError)]
    assert not client.is_history_whole()
    follower.wait_for(revision)
    follower.close()
    assert follower.error is None


def test_one_connection_serves_many_requests(
    secured: EtcdCluster, make_client: ClientMaker
) -> None:
    client = make_client(secured.config())
    client.list("/cgw/a")
    before = connections()
    for number in range(20):
        client.commit([Put("/cgw/a", str(number))])
    assert before == connections()
    assert 1 == len(before)


@pytest.mark.on_both_suites
@pytest.mark.parametrize(
    "ask",
    [
        lambda etcd: etcd.list("/other/a"),
        lambda etcd: etcd.list("/"),
        lambda etcd: etcd.commit([Put("/cgw/a", "1"), Put("/other/a", "1")]),
        lambda etcd: etcd.commit([Put("/cgw/a", "1"), Delete("/other/a")]),
    ],
    ids=["get", "list", "put", "delete"],
)
def test_what_is_not_its_own_is_refused_to_a_node(
    secured: EtcdCluster, make_client: ClientMaker, ask: Callable[[Etcd], object]
) -> None:
    client = make_client(secured.config())
    with pytest.raises(RegistryError, match="permission denied") as refused:
        ask(client)
    assert not refused.value.is_unknown
    assert str(secured.members[0].endpoint) == refused.value.subject
    cure = "run: etcdctl role grant-permission --prefix=true ROLE readwrite /cgw/"
    assert cure == refused.value.cure
    assert [] == client.list("/cgw/a").values


@pytest.mark.on_both_suites
def test_a_watch_of_what_is_not_its_own_is_refused_to_a_node(
    secured: EtcdCluster, follow: FollowerMaker
) -> None:
    error = follow(secured.config(), "/", 1).wait_for_end()
    assert "permission denied" in str(error)


class Fault(NamedTuple):
    """What is wrong with a config, and what an error says of that."""

    spoil: Callable[[Registry, Path], Registry]
    message: str
    cure: str


def with_password(config: Registry, path: Path, text: str, mode: int = 0o600) -> Registry:
    path.write_text(text)
    path.chmod(mode)
    return config._replace(password_file=str(path))


FAULTS = {
    "wrong password": Fault(
        lambda config, path: with_password(config, path, "a guess\n"),
        "invalid user ID or password",
        "correct user and password-file",
    ),
    "readable password": Fault(
        lambda config, path: with_password(config, path, f"{PASSWORD}\n", 0o640),
        "others than root can read the password",
        "chmod 600",
    ),
    "no password file": Fault(
        lambda config, path: config._replace(password_file=str(path)),
        "it cannot be read",
        "correct it",
    ),
    "device as password file": Fault(
        lambda config, _: config._replace(password_file="/dev/zero"),  # noqa: S106
        "/dev/zero: it is not a regular file",
        "write the password into one",
    ),
    "no user": Fault(
        lambda config, _: config._replace(user="", password_file=""),
        "permission denied",
        "set user and password-file",
    ),
    "wrong authority": Fault(
        lambda config, _: config._replace(ca=config.ca.replace("ca.pem", "other-ca.pem")),
        "its certificate does not pass /",
        "ca, certificate and key",
    ),
    "authorities of the host": Fault(
        lambda config, _: config._replace(ca=""),
        "its certificate does not pass the host's certification authorities",
        "ca, certificate and key",
    ),
    "no authority": Fault(
        lambda config, path: config._replace(ca=str(path)), "it cannot be used", "[registry]"
    ),
    "certificate with CN": Fault(
        lambda config, _: config._replace(
            certificate=config.certificate.replace(NODE, NODE_WITH_CN),
            key=config.key.replace(NODE, NODE_WITH_CN),
        ),
        "CommonName",
        "give this node a certificate without a CN",
    ),
    "no certificate": Fault(
        lambda config, _: config._replace(certificate="", key=""),
        "TLS fails",
        "ca, certificate and key",
    ),
    "key of another": Fault(
        lambda config, _: config._replace(key=config.key.replace(NODE, MEMBER)),
        "KEY_VALUES_MISMATCH",
        "[registry]",
    ),
    "http": Fault(
        lambda config, _: config._replace(
            endpoints=tuple(endpoint._replace(is_tls=False) for endpoint in config.endpoints)
        ),
        "it closes the connection without an answer",
        "https",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_config_is_said_with_its_cure(
    secured: EtcdCluster, make_client: ClientMaker, tmp_path: Path, fault: str
) -> None:
    spoil, message, cure = FAULTS[fault]
    client = make_client(spoil(secured.config(), tmp_path / "file"))
    asks = (
        lambda: client.list("/cgw/a", seconds=60),
        lambda: client.commit([Put("/cgw/a", "1")], seconds=60),  # etcd hashes the password
    )
    for ask in asks:
        with pytest.raises(RegistryError) as refused:
            ask()
        assert message in str(refused.value)
        assert cure in refused.value.cure
        assert str(refused.value).isprintable()
    assert [] == make_client(secured.config()).list("/cgw/a").values


@pytest.fixture
def unsecured(suite: str) -> Iterator[EtcdCluster]:
    """One member with TLS that has no users yet; the test runs on a node."""
    with namespace("etcd-unsecured-node") as node, open_etcd(suite, 1, tls=True) as etcd:
        etcd.join(node)
        with node.entered():
            yield etcd


@pytest.mark.on_both_suites
def test_users_may_come_while_a_node_runs(
    unsecured: EtcdCluster, make_client: ClientMaker, tmp_path: Path
) -> None:
    config = with_password(unsecured.config()._replace(user=USER), tmp_path / "file", PASSWORD)
    client = make_client(config)
    assert client.commit([Put("/cgw/a", "1")]).succeeded
    unsecured.turn_auth_on()
    assert client.commit([Put("/cgw/a", "2")]).succeeded
    assert ["2"] == [value.value for value in client.list("/cgw/a").values]
    with pytest.raises(RegistryError, match="permission denied"):
        client.list("/other")


def test_an_expired_token_is_renewed(secured: EtcdCluster, make_client: ClientMaker) -> None:
    client = make_client(secured.config())
    client.commit([Put("/cgw/a", "1")])
    # A token lasts longer if it is used, so nothing must be asked meanwhile.
    assert not eventually(lambda: False, within=TOKEN_SECONDS + 2)
    assert ["1"] == [value.value for value in client.list("/cgw/a").values]
    assert client.commit([Put("/cgw/a", "2")]).succeeded


@pytest.mark.on_both_suites
def test_tokens_that_members_have_forgotten_are_renewed(
    secured: EtcdCluster, make_client: ClientMaker, follow: FollowerMaker
) -> None:
    client = make_client(secured.config())
    start = client.commit([Put("/cgw/a", "1")]).revision + 1
    secured.kill()
    secured.start()
    follower = follow(secured.config(), "/cgw/", start)
    assert client.commit([Put("/cgw/a", "2")], seconds=60).succeeded
    follower.wait_for(start)
    assert ["2"] == [event.value for event in follower.events]


def test_a_user_in_the_config_is_no_fault_where_etcd_has_none(
    cluster: EtcdCluster, make_client: ClientMaker, tmp_path: Path
) -> None:
    config = with_password(cluster.config()._replace(user=USER), tmp_path / "file", PASSWORD)
    assert make_client(config).commit([Put("/cgw/a", "1")]).succeeded


@pytest.mark.extended
def test_tokens_of_before_a_restored_backup_are_renewed(
    secured: EtcdCluster, make_client: ClientMaker
) -> None:
    client = make_client(secured.config())
    client.commit([Put("/cgw/a", "1")])
    secured.snapshot()
    for number in range(50):
        client.commit([Put("/cgw/a", str(number))])
    secured.restore()

    def is_answered() -> bool:
        try:
            return ["1"] == [value.value for value in client.list("/cgw/a").values]
        except RegistryError:
            return False

    assert eventually(is_answered)

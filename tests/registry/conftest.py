"""The etcd of these tests, of Debian 12 and of Debian 13.

Each test runs inside the namespace of a node that reaches all members. What a test has cut off,
paused or killed is mended after it, and all keys are deleted.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from cgw_hooks.core.node_config import Registry
from cgw_hooks.host.etcd.client import Etcd
from tests.lab.etcd import EtcdCluster, open_etcd, sweep
from tests.lab.namespace import Namespace, namespace
from tests.libvirt.conftest import SUITES
from tests.libvirt.waiting import eventually
from tests.needs import fail_without
from tests.registry.cluster import RegistryCluster, has_no_records, registry_cluster
from tests.registry.follower import Follower

ClientMaker = Callable[[Registry], Etcd]
FollowerMaker = Callable[..., Follower]
_NEEDED_PROGRAMS = (
    "ip", "nft", "nsenter", "unshare", "setpriv", "mmdebstrap", "openssl", "ss",
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Say in one line what the machine lacks for this tier."""
    fail_without("registry", "the registry tier makes network namespaces", _NEEDED_PROGRAMS)
    sweep()


@pytest.fixture(scope="session", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """The Debian that the members' etcd is from."""
    return str(request.param)


@pytest.fixture(scope="session")
def three_members(suite: str) -> Iterator[tuple[EtcdCluster, Namespace]]:
    """Three members without TLS and users, and the namespace of a node that reaches them."""
    with namespace("etcd-node") as node, open_etcd(suite) as etcd:
        etcd.join(node)
        yield etcd, node


@pytest.fixture(scope="session")
def secured_members(suite: str) -> Iterator[tuple[EtcdCluster, Namespace]]:
    """Three members with TLS, users, and tokens that last two seconds."""
    options = ("--auth-token-ttl=2",)
    with (
        namespace("etcd-secured-node") as node,
        open_etcd(suite, tls=True, auth=True, options=options) as etcd,
    ):
        etcd.join(node)
        yield etcd, node


@pytest.fixture
def cluster(three_members: tuple[EtcdCluster, Namespace]) -> Iterator[EtcdCluster]:
    """Three members without TLS and users; the test runs on the node."""
    yield from _for_one_test(*three_members)


@pytest.fixture
def secured(secured_members: tuple[EtcdCluster, Namespace]) -> Iterator[EtcdCluster]:
    """Three members with TLS and users; the test runs on the node."""
    yield from _for_one_test(*secured_members)


def _for_one_test(etcd: EtcdCluster, node: Namespace) -> Iterator[EtcdCluster]:
    with node.entered():
        yield etcd
    etcd.mend()
    etcd.etcdctl("del", "--prefix", "")


@pytest.fixture
def make_client() -> Iterator[ClientMaker]:
    """Make a client, which is closed after the test."""
    with ExitStack() as until_end:

        def make(config: Registry) -> Etcd:
            made = Etcd(config)
            until_end.callback(made.close)
            return made

        yield make


@pytest.fixture
def client(cluster: EtcdCluster, make_client: ClientMaker) -> Etcd:
    """A client of the members without TLS, the first one first."""
    return make_client(cluster.config())


@pytest.fixture
def follow() -> Iterator[FollowerMaker]:
    """Start a follower, which is closed after the test."""
    with ExitStack() as until_end:

        def start(config: Registry, prefix: str, start_revision: int) -> Follower:
            made = Follower(config, prefix, start_revision)
            until_end.callback(made.close)
            return made

        yield start


@pytest.fixture(scope="module")
def nodes_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryCluster]:
    """Three nodes with agents, and an etcd of Debian 12."""
    with registry_cluster(tmp_path_factory.mktemp("cluster"), SUITES[0]) as made:
        made.start_agents()
        yield made


@pytest.fixture
def made(nodes_of_the_module: RegistryCluster) -> Iterator[RegistryCluster]:
    """Three nodes with agents; after the test all is mended, and no guest may be left."""
    made = nodes_of_the_module
    yield made
    made.mend()
    for node in made.nodes.values():
        for guest in node.guests:
            if guest.hooked:
                guest.stop()
    assert eventually(lambda: made.keys() == {}), made.keys()
    for node in made.nodes.values():
        assert eventually(partial(has_no_records, node)), node.records()

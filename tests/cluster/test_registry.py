"""Publish once, open at every node: real libvirt, real guests, a real etcd and three agents.

web1 declares its ports in its own definition. No node has an entry of it in its config.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import pytest

from cgw_hooks.errors import PortConflict
from tests.full import extended
from tests.lab import migrating_guest as guest
from tests.lab.client import Client
from tests.lab.cluster import Cluster, migrate, migrate_command
from tests.lab.cluster_registry import ClusterRegistry, open_registered_cluster
from tests.lab.domain import PUBLISH_NAMESPACE, domain_xml, guest_uuid
from tests.lab.network import GUEST_BRIDGE, guest_address, guest_address6
from tests.lab.node import Node
from tests.lab.reply import Outcome
from tests.lab.traffic import traffic, wait_for_answers
from tests.libvirt.waiting import eventually

pytestmark = pytest.mark.libvirt

UUID = guest_uuid(guest.OCTET)
RIVAL, RIVAL_OCTET, RIVAL_PORT = "web2", 203, 8099
#: Seconds within which a port must be open at all nodes once `cgw publish` has returned.
SOON = 10.0
SLOWLY = ("--bandwidth", "1")


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[Cluster, ClusterRegistry]]:
    with open_registered_cluster() as made:
        guest.start(made[0], has_registry=True)
        yield made


@pytest.fixture
def registry(opened: tuple[Cluster, ClusterRegistry]) -> ClusterRegistry:
    return opened[1]


@pytest.fixture
def cluster(opened: tuple[Cluster, ClusterRegistry]) -> Iterator[Cluster]:
    """Three nodes; each test begins and ends with web1 alone, on the first node."""
    cluster, registry = opened
    before = [ruleset(node) for node in cluster.nodes]
    assert registry.homes_of(UUID) == ["node1"]
    yield cluster
    registry.etcd.mend()
    registry.wait_until_connected()
    home = cluster.home_of(guest.NAME)
    if home is not cluster.node:
        migrate(guest.NAME, home, cluster.node)
    assert eventually(partial(has_homes, registry, "node1"))
    assert eventually(lambda: len(registry.entries()) == 1), registry.entries()
    assert eventually(lambda: [ruleset(node) for node in cluster.nodes] == before)


def ruleset(node: Node) -> str:
    return node.run(["nft", "--stateless", "list", "ruleset"]).stdout


def has_homes(registry: ClusterRegistry, *names: str) -> bool:
    """Whether exactly these nodes have an entry of web1."""
    return registry.homes_of(UUID) == list(names)


def answers(cluster: Cluster, port: int, *nodes: Node) -> set[str]:
    """Who answers at these nodes (default: all)."""
    client = Client(cluster.client)
    found = [client.tcp(node.addresses.uplink, port) for node in nodes or cluster.nodes]
    return {reply.guest if reply.answered else "nobody" for reply in found}


def until_open(cluster: Cluster, port: int, name: str, *nodes: Node) -> None:
    """Wait until the guest answers at each of these nodes (default: all), seeing the node."""
    for node in nodes or cluster.nodes:
        reply = Client(cluster.client).until_answered("tcp", node.addresses.uplink, port)
        assert (reply.guest, reply.peer) == (name, node.addresses.guest_network)


def set_annotation(node: Node, publish: str, *, address: str = guest.ADDRESS) -> None:
    attribute = f' address="{address}"' if address else ""
    text = f"<publish{attribute}>{publish.replace('cgw:', '')}</publish>"
    uri = [guest.NAME, PUBLISH_NAMESPACE, "--key", "cgw"]
    node.virsh("metadata", *uri, "--live", "--set", text)


def annotation(node: Node, name: str = guest.NAME) -> str:
    return node.virsh("metadata", name, PUBLISH_NAMESPACE, "--live", check=False).stdout


@contextmanager
def clients_that_notice_nothing(cluster: Cluster) -> Iterator[None]:
    """Sessions, exchanges and new connections through every node, none of which may fail."""
    with traffic(cluster.client, guest.entries(cluster), guest.PORTS, guest.NAME) as streams:
        yield
        wait_for_answers(streams)
    assert [stream for stream in streams if stream.failures] == []


@contextmanager
def rival(node: Node) -> Iterator[None]:
    """A second guest, which runs on a node and publishes RIVAL_PORT."""
    forward = f'<cgw:portForward proto="tcp"><cgw:range start="{RIVAL_PORT}" to="80"/>'
    xml = domain_xml(
        RIVAL,
        octet=RIVAL_OCTET,
        publish=f"{forward}</cgw:portForward>",
        publish_address=guest_address(RIVAL_OCTET),
    )
    node.define(xml)
    node.start(RIVAL)  # it need not have booted: its ports are claimed
    try:
        yield
    finally:
        node.destroy(RIVAL)
        node.virsh("undefine", RIVAL)


# -- cgw publish ---------------------------------------------------------------------------------


def test_a_port_that_is_published_on_one_node_is_open_at_all(
    cluster: Cluster, registry: ClusterRegistry
) -> None:
    node = cluster.node
    before = annotation(node)
    node.run(["cgw", "publish", guest.NAME, "8088:80"])
    assert eventually(lambda: answers(cluster, 8088) == {guest.NAME}, within=SOON)
    (value,) = registry.entries().values()
    assert "8088" in value
    node.run(["cgw", "unpublish", guest.NAME, "8088"])
    assert eventually(lambda: answers(cluster, 8088) == {"nobody"}, within=SOON)
    assert answers(cluster, guest.PORTS.connection) == {guest.NAME}
    assert annotation(node) == before


def test_a_port_of_another_nodes_guest_is_refused_and_the_annotation_is_as_before(
    cluster: Cluster, registry: ClusterRegistry
) -> None:
    node, other, _ = cluster.nodes
    before, entry = annotation(node), registry.entries()
    with rival(other):
        wanted = [f"{RIVAL_PORT}:80", "8088:80"]
        refused = node.run(["cgw", "publish", guest.NAME, *wanted], check=False)
        assert (refused.returncode, refused.stdout) == (PortConflict.exit_code, "")
        assert refused.stderr == (
            f'cgw: guest "{guest.NAME}": port *:{RIVAL_PORT}/tcp is published by guest "{RIVAL}" '
            "of another node (see: cgw status --cluster) (the former annotation was restored); "
            "publish another, or stop that guest first\n"
        )
        assert annotation(node) == before
        assert eventually(lambda: answers(cluster, 8088) == {"nobody"})
        assert {key: value for key, value in registry.entries().items() if UUID in key} == entry


def test_without_etcd_a_port_is_open_here_and_elsewhere_later(
    cluster: Cluster, registry: ClusterRegistry
) -> None:
    node, *others = cluster.nodes
    registry.etcd.kill()
    done = node.run(["cgw", "publish", guest.NAME, "8088:80"])
    assert done.stderr.endswith("; other nodes follow later\n"), done.stderr
    assert answers(cluster, 8088, node) == {guest.NAME}
    assert answers(cluster, 8088, *others) == {"nobody"}
    said = node.run(["cgw", "status"], check=False).stdout
    states = {line.split()[-1] for line in said.splitlines() if ":8088/" in line}
    assert states == {"pending"}
    registry.etcd.start()
    until_open(cluster, 8088, guest.NAME)
    node.run(["cgw", "unpublish", guest.NAME, "8088"])
    assert eventually(lambda: answers(cluster, 8088) == {"nobody"})


# -- live migration ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [(), extended(("--postcopy", "--postcopy-after-precopy"))])
def test_clients_go_on_while_the_guest_moves_round_all_nodes(
    cluster: Cluster, registry: ClusterRegistry, mode: tuple[str, ...]
) -> None:
    with clients_that_notice_nothing(cluster):
        for source, destination in guest.round_trip(cluster)[:3]:
            migrate(guest.NAME, source, destination, *mode)
            assert eventually(partial(has_homes, registry, destination.name))


def test_clients_go_on_while_the_guest_moves_under_a_new_name(
    cluster: Cluster, registry: ClusterRegistry
) -> None:
    names = [guest.NAME, "web1-moved", guest.NAME]
    first, second, _ = cluster.nodes
    moves = [(first, second), (second, first)]
    with clients_that_notice_nothing(cluster):
        for (source, destination), (name, new) in zip(moves, pairwise(names), strict=True):
            migrate(name, source, destination, "--dname", new)
            assert eventually(partial(has_homes, registry, destination.name))
            (value,) = registry.entries().values()
            assert f'"name": "{new}"' in value


@pytest.mark.extended
def test_clients_go_on_while_the_guest_moves_without_etcd_and_while_etcd_comes_back(
    cluster: Cluster, registry: ClusterRegistry
) -> None:
    first, second, _ = cluster.nodes
    with clients_that_notice_nothing(cluster):
        registry.etcd.kill()
        migrate(guest.NAME, first, second)
        assert answers(cluster, guest.PORTS.connection) == {guest.NAME}
        registry.etcd.start()
        assert eventually(partial(has_homes, registry, "node2"))
    until_open(cluster, guest.PORTS.connection, guest.NAME)


@pytest.mark.extended
def test_a_guest_that_is_destroyed_without_etcd_is_closed_at_its_node_at_once(
    cluster: Cluster, registry: ClusterRegistry
) -> None:
    first, _, third = cluster.nodes
    registry.etcd.kill()
    first.destroy(guest.NAME)
    try:
        assert refused_at(cluster, guest.PORTS.connection, first)
        registry.etcd.start()
        assert eventually(lambda: refused_at(cluster, guest.PORTS.connection, first, third))
    finally:
        guest.start(cluster, has_registry=True)


def test_addresses_that_were_found_move_with_the_guest(
    cluster: Cluster, registry: ClusterRegistry
) -> None:
    """Its destination has seen it answer over IPv4 alone."""
    first, second, _ = cluster.nodes
    second.network.run(["ip", "neigh", "flush", "dev", GUEST_BRIDGE])
    set_annotation(first, guest.PUBLISH, address="")
    try:
        assert eventually(partial(is_entered_for, registry, guest_address6(guest.OCTET)))
        (value,) = registry.entries().values()
        with clients_that_notice_nothing(cluster):
            migrate(guest.NAME, first, second)
            assert eventually(partial(has_homes, registry, "node2"))
        assert list(registry.entries().values()) == [value]
    finally:
        set_annotation(cluster.home_of(guest.NAME), guest.PUBLISH)


def is_entered_for(registry: ClusterRegistry, address: str) -> bool:
    """Whether an entry has a port that leads to this address."""
    return any(f'"{address}"' in value for value in registry.entries().values())


# -- migrations that fail ------------------------------------------------------------------------


@contextmanager
def moving_slowly(cluster: Cluster, registry: ClusterRegistry) -> Iterator[None]:
    """A migration that has reached the second node, and fails by what the block does."""
    first, second, _ = cluster.nodes
    with first.popen(migrate_command(guest.NAME, second, "--live", *SLOWLY)) as under_way:
        assert eventually(partial(has_homes, registry, "node1", "node2"))
        yield
        _, said = under_way.communicate(timeout=300)
    assert under_way.returncode != 0, said


def abort(cluster: Cluster, registry: ClusterRegistry) -> None:
    with moving_slowly(cluster, registry):
        cluster.node.virsh("domjobabort", guest.NAME)


def destination_dies(cluster: Cluster, registry: ClusterRegistry) -> None:
    destination = cluster.nodes[1]
    with moving_slowly(cluster, registry):
        pid = destination.path(f"/run/libvirt/qemu/{guest.NAME}.pid").read_text()
        destination.run(["kill", "-KILL", pid])


def destination_refuses(cluster: Cluster, _registry: ClusterRegistry) -> None:
    """A process of the destination listens on a port that the guest's definition now has too."""
    first, second, _ = cluster.nodes
    more = '<cgw:portForward proto="tcp"><cgw:range start="9999" to="80"/></cgw:portForward>'
    with second.network.call(lambda: socket.create_server(("", 9999))):
        try:
            set_annotation(first, guest.PUBLISH + more)
            refused = first.run(migrate_command(guest.NAME, second, "--live"), check=False)
        finally:
            set_annotation(first, guest.PUBLISH)
    assert refused.returncode != 0
    assert "9999/tcp is in use by a process of this node" in refused.stderr


@pytest.mark.parametrize("failure", [abort, extended(destination_dies), destination_refuses])
def test_a_migration_that_fails_closes_nothing(
    cluster: Cluster,
    registry: ClusterRegistry,
    failure: Callable[[Cluster, ClusterRegistry], None],
) -> None:
    entries = registry.entries()
    with clients_that_notice_nothing(cluster):
        failure(cluster, registry)
        assert eventually(partial(has_homes, registry, "node1"))
    assert eventually(lambda: registry.entries() == entries)
    assert cluster.home_of(guest.NAME) is cluster.node


# -- a node dies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry", ["is there", extended("was forgotten"), extended("is taken over")]
)
def test_a_dead_nodes_guest_starts_on_another_node(
    cluster: Cluster, registry: ClusterRegistry, entry: str
) -> None:
    first, second, third = cluster.nodes
    port = guest.PORTS.connection
    with rival(first):
        migrate(guest.NAME, first, second)
        until_open(cluster, RIVAL_PORT, RIVAL)
        assert eventually(partial(has_homes, registry, "node2"))
        registry.power_off(second)
        if entry == "was forgotten":
            assert third.run(["cgw", "registry", "forget", "node2"]).stdout.startswith("node2: 1 ")
            assert eventually(lambda: refused_at(cluster, port, first, third))
        third.virsh("create", "/dev/stdin", input=guest.definition())
        assert answers(cluster, RIVAL_PORT, first, third) == {RIVAL}
        until_open(cluster, port, guest.NAME, first, third)
        if entry == "is taken over":
            assert eventually(partial(has_homes, registry, "node3"))
        registry.power_on(second)
        until_open(cluster, port, guest.NAME)
        assert answers(cluster, RIVAL_PORT) == {RIVAL}
        assert eventually(partial(has_homes, registry, "node3"))


def refused_at(cluster: Cluster, port: int, *nodes: Node) -> bool:
    """Whether all of these nodes refuse connections themselves, for nothing is published."""
    client = Client(cluster.client)
    replies = [client.tcp(node.addresses.uplink, port, timeout=1.0) for node in nodes]
    return {reply.outcome for reply in replies} == {Outcome.REFUSED}

"""A published guest moves: its clients go on, through whichever node they came in."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from tests.full import extended
from tests.lab import migrating_guest as guest
from tests.lab.client import Client
from tests.lab.cluster import Cluster, migrate, migrate_command
from tests.lab.domain import domain_xml
from tests.lab.network import GUEST_BRIDGE, INTERNODE_DEVICES
from tests.lab.node import Node
from tests.lab.traffic import Stream, traffic, wait_for_answers
from tests.libvirt.waiting import eventually

pytestmark = pytest.mark.libvirt

SLOWLY = ("--bandwidth", "1")
"""MiB/s: a migration that takes long enough to be stopped."""
RIVAL = '<cgw:portForward proto="tcp"><cgw:range start="9999" to="80"/></cgw:portForward>'


@pytest.fixture(scope="module", autouse=True)
def running_guest(cluster: Cluster) -> None:
    guest.start(cluster)


@pytest.fixture(autouse=True)
def at_home(cluster: Cluster) -> Iterator[None]:
    """Each test begins with the guest on the first node."""
    yield
    home = cluster.home_of(guest.NAME)
    if home is not cluster.node:
        migrate(guest.NAME, home, cluster.node)


@contextmanager
def clients_that_notice_nothing(cluster: Cluster) -> Iterator[list[Stream]]:
    """Sessions, exchanges and new connections through every node, none of which may fail."""
    with traffic(cluster.client, guest.entries(cluster), guest.PORTS, guest.NAME) as streams:
        yield streams
        wait_for_answers(streams)
    assert [stream for stream in streams if stream.failures] == []


def published_state(node: Node) -> tuple[str, dict[str, str]]:
    """A node's ruleset and records."""
    records = {path.name: path.read_text() for path in node.path("/run/cgw/guests").iterdir()}
    return node.run(["nft", "--stateless", "list", "ruleset"]).stdout, records


def lives_on(node: Node) -> bool:
    """Whether a node has the guest as its own, translated."""
    path = node.path(guest.RECORD)
    return path.exists() and json.loads(path.read_text())["state"] == "published"


def ports(node: Node) -> dict[str, tuple[str, str]]:
    """Inter-node device -> its state in the guest bridge, and its flag "isolated"."""
    found = {}
    for device in INTERNODE_DEVICES:
        shown = node.network.run(["bridge", "-d", "link", "show", "dev", device]).stdout.split()
        found[device] = (shown[shown.index("state") + 1], shown[shown.index("isolated") + 1])
    return found


def runs_spanning_tree(node: Node) -> bool:
    shown = node.network.run(["ip", "-d", "link", "show", GUEST_BRIDGE]).stdout.split()
    return shown[shown.index("stp_state") + 1] == "1"


def test_the_full_mesh_has_no_spanning_tree_and_every_link_of_it_is_in_use(
    cluster: Cluster,
) -> None:
    assert [runs_spanning_tree(node) for node in cluster.nodes] == [False] * 3
    in_use = dict.fromkeys(INTERNODE_DEVICES, ("forwarding", "on"))
    assert [ports(node) for node in cluster.nodes] == [in_use] * 3


@pytest.mark.parametrize("mode", [(), extended(("--postcopy", "--postcopy-after-precopy"))])
def test_clients_go_on_while_the_guest_moves_round_all_nodes_and_back(
    cluster: Cluster, mode: tuple[str, ...]
) -> None:
    before = [published_state(node)[0] for node in cluster.nodes]
    with clients_that_notice_nothing(cluster):
        for source, destination in guest.round_trip(cluster):
            migrate(guest.NAME, source, destination, *mode)
            assert lives_on(destination)
            assert not source.path(guest.RECORD).exists()
    assert [published_state(node)[0] for node in cluster.nodes] == before


def test_clients_go_on_while_the_guest_moves_under_a_new_name(cluster: Cluster) -> None:
    before = [published_state(node)[0] for node in cluster.nodes]
    names = [guest.NAME, "web1-moved", "web1-moved-on", guest.NAME]
    round_of_nodes = guest.round_trip(cluster)[:3]
    with clients_that_notice_nothing(cluster):
        for (source, destination), (name, new) in zip(round_of_nodes, pairwise(names), strict=True):
            migrate(name, source, destination, "--dname", new)
            assert lives_on(destination)
    assert [published_state(node)[0] for node in cluster.nodes] == before


@contextmanager
def moving_slowly(cluster: Cluster) -> Iterator[None]:
    """A migration that has reached the second node, and fails by what the block does."""
    first, second, _ = cluster.nodes
    command = migrate_command(guest.NAME, second, "--live", *SLOWLY)
    with first.popen(command) as under_way:
        assert eventually(lambda: lives_on(second)), "the destination's hook was not called"
        yield
        _, said = under_way.communicate(timeout=300)
    assert under_way.returncode != 0, said


def abort(cluster: Cluster) -> None:
    with moving_slowly(cluster):
        cluster.node.virsh("domjobabort", guest.NAME)


def destination_dies(cluster: Cluster) -> None:
    destination = cluster.nodes[1]
    with moving_slowly(cluster):
        pid = destination.path(f"/run/libvirt/qemu/{guest.NAME}.pid").read_text()
        destination.run(["kill", "-KILL", pid])


def destination_refuses(cluster: Cluster) -> None:
    """A process of the destination listens on a port that the guest's definition now has too."""
    first, second, _ = cluster.nodes
    with second.network.call(lambda: socket.create_server(("", 9999))):
        try:
            set_annotation(first, guest.PUBLISH + RIVAL)
            refused = first.run(migrate_command(guest.NAME, second, "--live"), check=False)
        finally:
            set_annotation(first, guest.PUBLISH)
    assert refused.returncode != 0
    assert "9999/tcp is in use by a process of this node" in refused.stderr


def set_annotation(node: Node, publish: str) -> None:
    inner = publish.replace("cgw:", "")
    text = f'<publish address="{guest.ADDRESS}">{inner}</publish>'
    node.virsh(
        "metadata", guest.NAME, "urn:cgw-hooks:1", "--key", "cgw", "--live", "--set", text
    )  # fmt: skip


@pytest.mark.parametrize("failure", [abort, destination_dies, destination_refuses])
def test_a_migration_that_fails_leaves_all_nodes_as_they_were(
    cluster: Cluster, failure: Callable[[Cluster], None]
) -> None:
    before = [published_state(node) for node in cluster.nodes]
    with clients_that_notice_nothing(cluster):
        failure(cluster)
        assert eventually(lambda: not cluster.nodes[1].path(guest.RECORD).exists())
    assert [published_state(node) for node in cluster.nodes] == before
    assert cluster.home_of(guest.NAME) is cluster.node


def test_a_definition_that_moves_offline_publishes_where_it_is_started(cluster: Cluster) -> None:
    first, second, _ = cluster.nodes
    publish = '<cgw:portForward proto="tcp"><cgw:range start="8081" to="80"/></cgw:portForward>'
    first.define(domain_xml("web2", octet=203, publish=publish, publish_address="10.5.5.203"))
    before = [published_state(node) for node in cluster.nodes]
    first.run(migrate_command("web2", second, "--offline", "--persistent"))
    assert [published_state(node) for node in cluster.nodes] == before
    second.start("web2")
    try:
        reply = Client(cluster.client).until_answered("tcp", second.addresses.uplink, 8081)
        assert (reply.guest, reply.peer) == ("web2", second.addresses.guest_network)
        assert published_state(first) == before[0]
    finally:
        second.destroy("web2")
    assert [published_state(node) for node in cluster.nodes] == before

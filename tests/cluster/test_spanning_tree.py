"""The two ways to close a ring: a full mesh without a spanning tree, and a node that runs one.

Either way a guest moves round all nodes, and its clients notice nothing but a pause.
"""

from collections.abc import Iterator

import pytest

from tests.cluster.test_migration import clients_that_notice_nothing
from tests.lab import migrating_guest as guest
from tests.lab.cluster import Cluster, migrate, open_cluster
from tests.lab.network import GUEST_BRIDGE, INTERNODE_DEVICES
from tests.lab.node import Node

pytestmark = pytest.mark.libvirt


@pytest.fixture(scope="module")
def ring() -> Iterator[Cluster]:
    """The cluster as it was wired: the last node runs the spanning tree."""
    with open_cluster(full_mesh=False) as opened:
        guest.start(opened)
        yield opened


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


def test_clients_go_on_in_a_ring_with_a_spanning_tree(ring: Cluster) -> None:
    """One link is blocked; an arrival at the tree's node is silent at first, and nothing fails.

    Not the move from node1 to node3. The port of a guest that arrives there is blocked at first, so
    the frames with which QEMU announces it are lost. node2's bridge still knows it behind node1 and
    sends no frame of node1 on, until the guest itself sends one or the entry is 300 s old.
    """
    assert [runs_spanning_tree(node) for node in ring.nodes] == [False, False, True]
    blocked = [port for port in ports(ring.nodes[-1]).values() if port == ("blocking", "off")]
    assert len(blocked) == 1
    with clients_that_notice_nothing(ring):
        for source, destination in guest.round_trip(ring)[:3]:
            migrate(guest.NAME, source, destination)

"""A ring with a node that runs a spanning tree, in place of a full mesh (see test_migration.py).

Here too a guest moves round all nodes, and its clients notice nothing but a pause.
"""

from collections.abc import Iterator
from functools import partial

import pytest

from tests.cluster.test_migration import (
    clients_that_notice_nothing,
    ports,
    runs_spanning_tree,
)
from tests.lab import migrating_guest as guest
from tests.lab.cluster import Cluster, migrate, open_cluster
from tests.lab.node import Node
from tests.lab.traffic import wait_for_answers
from tests.libvirt.waiting import eventually

pytestmark = [pytest.mark.libvirt, pytest.mark.extended]


@pytest.fixture(scope="module")
def ring() -> Iterator[Cluster]:
    """The cluster as it was wired: the last node runs the spanning tree."""
    with open_cluster(full_mesh=False) as opened:
        guest.start(opened)
        yield opened


def is_heard(node: Node) -> bool:
    """Whether the port of the guest, which runs on this node, passes frames on."""
    device = node.virsh("domiflist", guest.NAME).stdout.split()[0]
    shown = node.network.run(["bridge", "link", "show", "dev", device]).stdout.split()
    return shown[shown.index("state") + 1] == "forwarding"


def test_clients_go_on_in_a_ring_with_a_spanning_tree(ring: Cluster) -> None:
    """One link is blocked; an arrival at the tree's node is silent at first, and nothing fails.

    The port of a guest that arrives there passes no frame for twice the forward delay. QEMU
    announces the guest for a second only, so nobody hears that. Seen after the move from node1:

         0 s    the migration is over; node2 knows the guest behind node1, whose frames it drops
         5 s    the port passes frames: the guest answers through node3, and not through the others
        20 s    node2's ARP entry has expired (15 to 45 s, and 8 s of probes), so it asks all:
                with the answer it learns the guest's place, and all entries answer

    With nothing from the guest and no such question, node2 forgets the place after 300 s. This is
    in the nature of a spanning tree that not all bridges run; an announcement in time helps.

    The kernel of a client doubles the pause after each segment that is lost. So the guest moves on
    only when every client has had an answer: several silences together would last for minutes.
    """
    assert [runs_spanning_tree(node) for node in ring.nodes] == [False, False, True]
    blocked = [port for port in ports(ring.nodes[-1]).values() if port == ("blocking", "off")]
    assert len(blocked) == 1
    with clients_that_notice_nothing(ring) as streams:
        for source, destination in guest.round_trip(ring):
            migrate(guest.NAME, source, destination)
            if runs_spanning_tree(destination):
                assert eventually(partial(is_heard, destination))
                destination.virsh("qemu-monitor-command", guest.NAME, "--hmp", "announce_self")
            wait_for_answers(streams)

"""Nodes that replicate their connections know each other by the registry, with FULL-NAT, too."""

from collections.abc import Iterator
from functools import partial

import pytest

from tests.lab.network import NodeAddresses
from tests.libvirt.conftest import SUITES
from tests.libvirt.waiting import eventually
from tests.netns.node import Node
from tests.registry.cluster import RegistryCluster, registry_cluster
from tests.registry.steering import Resync

pytestmark = pytest.mark.registry


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryCluster]:
    """Two nodes with agents. conntrackd itself does not run: its config is enough here."""
    with registry_cluster(tmp_path_factory.mktemp("cluster"), SUITES[0], nodes=2, count=1) as found:
        for node in found.nodes.values():
            node.configure(node.config_file.read_text() + "[failover]\nreplicate = true\n")
            found.until_end.callback(Resync(node).close)
            node.cgw("node", "up")
        found.start_agents()
        yield found


def knows(node: Node, other: NodeAddresses) -> tuple[bool, bool]:
    """Whether conntrackd's config and the rules of a node know another one."""
    config = (node.runtime / "conntrackd.conf").read_text()
    rule = f"ip daddr {other.uplink} snat ip to {other.guest_network}"
    return f"IPv4_address {other.guest_network}\n" in config, rule in node.our_table()


def test_they_know_each_other_until_one_is_forgotten(made: RegistryCluster) -> None:
    node1, node2 = (NodeAddresses(number) for number in (1, 2))
    for node, other in ((made.nodes[1], node2), (made.nodes[2], node1)):
        assert eventually(partial(lambda n, o: knows(n, o) == (True, True), node, other))
    made.guest("web1").start()
    made.until_open(2201, "web1")
    made.kill_agent(2)
    assert knows(made.nodes[1], node2) == (True, True)
    made.nodes[1].cgw("registry", "forget", "--for-good", "node2")
    assert eventually(lambda: knows(made.nodes[1], node2) == (False, False))
    made.guest("web1").stop("shutdown")

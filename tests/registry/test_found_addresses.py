"""A guest whose annotation names no address: it must not get lost when the guest migrates."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.network import GUEST_BRIDGE
from tests.libvirt.waiting import eventually
from tests.netns.cluster import SERVED, guest_at
from tests.netns.guest import Guest
from tests.netns.node import Node
from tests.registry.cluster import RegistryCluster, has_homes, leave, registry_cluster

pytestmark = pytest.mark.registry

PORT = 2201


@pytest.fixture
def made(tmp_path: Path) -> Iterator[RegistryCluster]:
    with registry_cluster(tmp_path, "bookworm") as found:
        found.start_agents()
        yield found


def without_address(guest: Guest) -> str:
    """The guest's definition, whose annotation names no address."""
    addresses = f' address="{guest_at(guest.name, 4)},{guest_at(guest.name, 6)}"'
    assert addresses in guest.xml
    return guest.xml.replace(addresses, "")


def forget_neighbours(node: Node) -> None:
    """Let a node forget where guests are, as one that has just booted."""
    node.namespace.run(["ip", "neigh", "flush", "dev", GUEST_BRIDGE])


def test_a_guest_that_migrates_is_never_closed_although_the_destination_has_not_met_it(
    made: RegistryCluster,
) -> None:
    guest = made.guest("web1")
    xml = without_address(guest)
    guest.start(xml=xml)
    made.nodes[1].asks(guest_at("web1", 4), SERVED)  # its node meets it
    made.until_open(PORT, "web1")
    forget_neighbours(made.nodes[2])
    with made.connecting(PORT, 1, 3) as connections:
        for operation in ("migrate", "prepare", "start", "started"):
            assert made.nodes[2].hook("web1", operation, "-", xml).exit_code == 0
        assert eventually(lambda: has_homes(made, "node1", "node2"))
        seen = connections.made
        assert eventually(lambda: connections.made > seen + 50)
        leave(made.nodes[1], guest)
        assert eventually(lambda: has_homes(made, "node2"))
        seen = connections.made
        assert eventually(lambda: connections.made > seen + 50)
    assert connections.failed == []
    made.until_open(PORT, "web1")

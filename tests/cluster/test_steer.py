"""Real guests that QEMU migrates, and that see the client's own address: steer and ct-sync."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cgw_hooks.core.node_config import CT_SYNC, STEER
from tests.full import extended
from tests.lab import migrating_guest as guest
from tests.lab.client import Client
from tests.lab.cluster import Cluster, migrate, open_cluster
from tests.lab.cluster_replication import Replication
from tests.lab.network import CLIENT_ADDRESS
from tests.lab.traffic import Stream, traffic, wait_for_answers

pytestmark = pytest.mark.libvirt


@pytest.fixture(scope="module", params=[STEER, extended(CT_SYNC)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three gateways with a return path and the guest, and a client."""
    with ExitStack() as until_end:
        opened = until_end.enter_context(open_cluster(return_path=request.param))
        if request.param == CT_SYNC:
            until_end.callback(Replication(opened.nodes).end)
        guest.start(opened)
        yield opened


@pytest.fixture(params=["0", extended("1")], ids=["routed", "br_netfilter"])
def bridged(request: pytest.FixtureRequest, cluster: Cluster) -> None:
    """Whether bridged packets meet the rules of routed ones, on every node."""
    for node in cluster.nodes:
        node.network.sysctl({"net/bridge/bridge-nf-call-iptables": str(request.param)})


@pytest.mark.usefixtures("bridged")
def test_clients_go_on_and_are_known_while_the_guest_moves_round_all_nodes(
    cluster: Cluster,
) -> None:
    before = guest.crashes(cluster)

    def has_crashed() -> bool:
        return guest.crashes(cluster) > before

    try:
        streams = streams_while_the_guest_moves(cluster, has_crashed)
    except TimeoutError:
        if not has_crashed():
            raise
        # QEMU without KVM may lose a page that the guest writes while QEMU looks for written pages
        # (three in 330 migrations, on two cores with a load average of 8 to 16).
        warnings.warn("the guest's kernel has crashed, and was started again", stacklevel=1)
        cluster.node.start(guest.NAME)
        streams = streams_while_the_guest_moves(cluster, lambda: False)
    assert [stream for stream in streams if stream.failures] == []


def streams_while_the_guest_moves(
    cluster: Cluster, is_hopeless: Callable[[], bool]
) -> list[Stream]:
    """Traffic through all nodes during a round trip. Raises TimeoutError if a stream ends."""
    entries = guest.entries(cluster)
    assert set(entries.values()) == {CLIENT_ADDRESS}
    with traffic(cluster.client, entries, guest.PORTS, guest.NAME) as streams:
        for source, destination in guest.round_trip(cluster):
            migrate(guest.NAME, source, destination)
            wait_for_answers(streams, is_hopeless)
    return streams


def test_another_node_is_a_client_with_full_nat(cluster: Cluster) -> None:
    """The guest's node would route its answers to a node's own address by the uplink."""
    second = cluster.nodes[1]
    reply = Client(second.network).tcp(cluster.node.addresses.uplink, guest.PORTS.connection)
    assert (reply.guest, reply.peer) == (guest.NAME, cluster.node.addresses.guest_network)

"""keepalived decides who stands in for a node: the addresses of the DNS name always answer."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.failover.cluster import BETWEEN, ENTRY, HOME, Failover
from tests.failover.keepalived import Keepalived
from tests.lab import network
from tests.libvirt.waiting import eventually
from tests.return_path.streams import guest_stream, transfer

pytestmark = pytest.mark.failover

NODES = (ENTRY, BETWEEN, HOME)
BEFORE = 8 << 20


def _stands_for_itself_alone(index: int, daemon: Keepalived) -> bool:
    return {index} == {other for other in NODES if daemon.stands_for(f"node{other}")}


@pytest.fixture
def daemons(failover: Failover) -> Iterator[dict[int, Keepalived]]:
    """The daemons, when each node stands for itself alone."""
    with ExitStack() as until_end:
        found = {}
        for index in NODES:
            found[index] = Keepalived(failover.node(index))
            until_end.callback(found[index].stop)
        assert eventually(lambda: all(map(_stands_for_itself_alone, found, found.values())))
        yield found


def test_a_dead_node_s_connections_go_on(
    failover: Failover, daemons: dict[int, Keepalived], family: int
) -> None:
    client_first, guest_first, down, up = (failover.connect(family) for _ in range(4))
    datagrams, stream = failover.exchange(family), failover.exchange(family)
    failover.wait_for_replication(BETWEEN, client_first, guest_first, down, up, datagrams, stream)
    with (
        transfer(down.guest, down.client, BEFORE),
        transfer(up.client, up.guest, BEFORE),
        guest_stream(stream),
    ):
        failover.kill_node()
        assert eventually(lambda: daemons[BETWEEN].stands_for("node1"))
        client_first.client_speaks()
        guest_first.guest_speaks()
        datagrams.guest_speaks()
    assert not daemons[HOME].stands_for("node1")
    for entry in NODES:
        assert failover.asks(entry, family) == failover.seen_by_guest(entry, family)


def test_a_node_that_is_back_gets_its_connections_back(
    failover: Failover, daemons: dict[int, Keepalived], family: int
) -> None:
    session = failover.connect(family)
    failover.wait_for_replication(BETWEEN, session)
    network.unplug(failover.node(ENTRY).namespace)
    assert eventually(lambda: daemons[BETWEEN].stands_for("node1"))
    session.client_speaks()
    later = failover.connect(family)
    network.plug_in(failover.node(ENTRY).namespace)
    assert eventually(lambda: daemons[ENTRY].stands_for("node1"))
    assert eventually(lambda: not daemons[BETWEEN].stands_for("node1"))
    for each in (session, later):
        each.client_speaks()
        each.guest_speaks()
    for entry in NODES:
        assert failover.asks(entry, family) == failover.seen_by_guest(entry, family)

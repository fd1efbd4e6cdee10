"""A node dies in the middle of connections; another one carries them on, and no byte is lost."""

import pytest

from cgw_hooks.core.node_config import FULL_NAT
from tests.failover.cluster import BETWEEN, ENTRY, HOME, OUTSIDE, Failover
from tests.return_path.streams import guest_stream, transfer

pytestmark = pytest.mark.failover

#: Bytes that a transfer has made before the node dies: it is in the middle then, since it goes on
#: until the test ends it.
BEFORE = 8 << 20


@pytest.mark.parametrize("bridging", [False, True], ids=["routed", "br_netfilter"])
@pytest.mark.parametrize("taker", [BETWEEN, HOME], ids=["third-node", "guests-own-node"])
def test_all_connections_go_on(failover: Failover, taker: int, family: int, bridging: bool) -> None:
    """Client and guest speak first, over TCP and UDP; a download, an upload, a guest's stream."""
    failover.made.pass_bridged_packets_to_rules(bridging)
    client_first, guest_first, down, up = (failover.connect(family) for _ in range(4))
    to_guest, to_client, stream = (failover.exchange(family) for _ in range(3))
    opened = (client_first, guest_first, down, up, to_guest, to_client, stream)
    failover.wait_for_replication(taker, *opened)
    with (
        transfer(down.guest, down.client, BEFORE),
        transfer(up.client, up.guest, BEFORE),
        guest_stream(stream),
    ):
        failover.kill_node()
        failover.take_over(taker)
        client_first.client_speaks()
        guest_first.guest_speaks()
        to_guest.client_speaks()
        to_client.guest_speaks()
    for connection in (client_first, guest_first):
        connection.close()
    for exchange in (to_guest, to_client, stream):
        exchange.assert_clean()
    assert failover.asks(ENTRY, family) == failover.seen_by_guest(ENTRY, family)


def test_connections_by_living_nodes_go_on(failover: Failover, family: int) -> None:
    """The taker's own, those of the third node, and what comes in by both afterwards."""
    failover.made.pass_bridged_packets_to_rules(True)
    sessions = [failover.connect(family, entry=node) for node in (BETWEEN, HOME)]
    streams = [failover.exchange(family, entry=node) for node in (BETWEEN, HOME)]
    failover.wait_for_replication(BETWEEN, sessions[1], streams[1])
    failover.kill_node()
    failover.take_over(BETWEEN)
    for _ in range(2):
        for session in sessions:
            session.client_speaks()
            session.guest_speaks()
        for stream in streams:
            stream.client_speaks()
            stream.guest_speaks()
    for node in (BETWEEN, HOME):
        assert failover.asks(node, family) == failover.seen_by_guest(node, family)


def test_the_second_death_is_survived_as_well(failover: Failover, family: int) -> None:
    """node2 carries node1 on; then node2 dies, and node3 carries both on."""
    session, exchange = failover.connect(family), failover.exchange(family)
    failover.wait_for_replication(BETWEEN, session, exchange)
    failover.kill_node()
    failover.take_over(BETWEEN)
    session.client_speaks()
    exchange.client_speaks()
    failover.wait_for_replication(HOME, session, exchange)
    failover.kill_node(BETWEEN)
    failover.take_over(HOME, ENTRY)
    failover.take_over(HOME, BETWEEN)
    session.client_speaks()
    session.guest_speaks()
    exchange.guest_speaks()
    for node in (ENTRY, BETWEEN, HOME):
        assert failover.asks(node, family) == failover.seen_by_guest(node, family)


@pytest.mark.parametrize("failover", [FULL_NAT], indirect=True)
def test_a_connection_of_a_guest_that_has_left_goes_on(failover: Failover, family: int) -> None:
    """It went out by the node that dies, where the guest had run before.

    With br_netfilter it does not: a node that bridges its packets tracks them as well, and tells
    the others of a flow that is not translated. With steering it ends already when the guest moves.
    """
    failover.made.pass_bridged_packets_to_rules(False)
    opened = failover.connect_outward("web1", family)
    guest = failover.made.guests["web1"]
    guest.move(HOME)
    opened.client_speaks()
    failover.wait_for_replication(HOME, opened, port=OUTSIDE)
    failover.kill_node()
    failover.take_over(HOME)
    guest.meet_gateway()
    opened.client_speaks()
    opened.guest_speaks()

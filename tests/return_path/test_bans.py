"""Bans at the node where a client comes in, with each return path."""

import pytest

from tests.netns.asker import PATIENCE_FOR_NOTHING
from tests.return_path.cluster import CLIENT, NODES, WHO
from tests.return_path.way import Way

#: tests/netns has the same without steering.
pytestmark = [pytest.mark.return_path, pytest.mark.extended]


def is_silent(way: Way, protocol: str) -> bool:
    """Whether nothing comes back to the client by its entry node."""
    return way.made.client.is_unanswered(way.entry_address, way.port(WHO), protocol)


@pytest.mark.usefixtures("placed")
def test_a_ban_closes_the_ways_by_its_own_node_alone(way: Way) -> None:
    node = way.made.nodes[way.entry]
    opened = way.connect()
    node.cgw("deny", CLIENT[way.family])
    try:
        assert [is_silent(way, protocol) for protocol in ("tcp", "udp", "sctp")] == [True] * 3
        opened.guest.settimeout(PATIENCE_FOR_NOTHING)
        with pytest.raises((TimeoutError, ConnectionError)):
            opened.client_speaks()
        for other in (n for n in NODES if n != way.entry):
            assert Way(way.made, way.guest, other, way.family).asks("client").startswith("web2")
        assert way.asks("far").startswith("web2")
    finally:
        opened.abandon()
        way.made.opened.remove(opened)
        node.cgw("allow", "--all")
    assert way.asks("client") == f"web2 saw {way.seen()}"

"""A node dies in the middle of connections; another node carries them on, and no byte is lost."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.failover.cluster import ENTRY, GUEST, Failover, open_failover
from tests.return_path.cluster import CHAIN, FULL_NAT, TALK, listening_port
from tests.return_path.sessions import Connection, Exchange, connect
from tests.return_path.streams import guest_stream, transfer
from tests.netns.cluster import uplink

pytestmark = pytest.mark.failover

RETURN_PATHS = (FULL_NAT,)
PORT = listening_port(GUEST, TALK)


@pytest.fixture(params=RETURN_PATHS)
def failover(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Failover]:
    with open_failover(tmp_path, request.param, CHAIN) as made:
        yield made


@pytest.mark.parametrize("bridging", [False, True], ids=["routed", "br_netfilter"])
@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("taker", [2, 3], ids=["third-node", "own-node"])
def test_all_connections_go_on(failover: Failover, taker: int, family: int, bridging: bool) -> None:
    made = failover.made
    made.pass_bridged_packets_to_rules(bridging)
    client, talker = made.client.namespace, made.talkers[GUEST, family]
    entry = uplink(ENTRY, family)

    def session() -> Connection:
        return connect(client, entry, PORT, talker)

    def exchange() -> Exchange:
        opened = Exchange(client, entry, PORT, talker)
        opened.client_speaks()
        opened.client_speaks()
        return opened

    first, second, down, up = (session() for _ in range(4))
    for each in (first, second):
        each.client_speaks()
    datagrams, pushed, stream = (exchange() for _ in range(3))
    with transfer(down.guest, down.client) as download, transfer(up.client, up.guest) as upload:
        ports = [each.client.getsockname()[1] for each in (first, second, down, up, datagrams, pushed, stream)]
        failover.wait_for_replication(taker, *ports)
        before = download.received, upload.received
        began = time.monotonic()
        failover.kill_node()
        said = failover.node(taker).cgw("node", "takeover", "node1").stdout
        print(said, time.monotonic() - began)
        download.wait_for(1); print("down", time.monotonic() - began)
        upload.wait_for(1); print("up", time.monotonic() - began)
        first.client_speaks()
        second.guest_speaks()
        pushed.guest_speaks()
        datagrams.client_speaks()
        print("all", time.monotonic() - began)
    for each in (first, second):
        each.close()
    for each in (datagrams, pushed, stream): each.assert_clean(); each.abandon()
    for protocol in ("tcp", "udp", "sctp"):
        assert made.client.asks(entry, listening_port(GUEST, 22), protocol) == f"web3 saw {made.seen_as('::' if family == 6 else '', taker)}"

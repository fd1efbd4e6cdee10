"""A published port, packet by packet: who answers, and which source address the guest sees."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.network import guest_address, guest_address6
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, FULL_NAT, GATEWAY, NODE, NODE_AMONG_GUESTS, NONE
from tests.netns.conftest import uplink_client, uplink_node
from tests.netns.parameters import families, protocols

pytestmark = pytest.mark.netns


@dataclass(frozen=True)
class Table:
    """The hosts that ask in the packet table, all on one node."""

    full_nat: bool
    askers: dict[str, Asker]


@pytest.fixture(scope="module", params=["routed", "br_netfilter"])
def bridging(request: pytest.FixtureRequest) -> str:
    """Whether bridged packets meet the rules too: they do on hosts with Docker or Kubernetes."""
    return str(request.param)


@pytest.fixture(scope="module", params=[NONE, FULL_NAT], ids=["no-config", "full-nat"])
def table(
    request: pytest.FixtureRequest, bridging: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Table]:
    folder: Path = tmp_path_factory.mktemp("node")
    with ExitStack() as until_end:
        client = until_end.enter_context(uplink_client())
        node = until_end.enter_context(uplink_node(client, folder, request.param))
        node.pass_bridged_packets_to_rules(bridging == "br_netfilter")
        both = f"{guest_address(11)},{guest_address6(11)}"
        ports = ("2202:22/tcp", "2202:22/udp", "2202:22/sctp")
        web1 = node.guest("web1", *ports, serves="22/tcp 22/udp 22/sctp", addresses=both)
        web1.wire.serve(guest_address6(11), "22/tcp 22/udp 22/sctp")
        web2 = node.guest("web2", serves="80/tcp")
        # With br_netfilter the kernel hands a translated packet from port to port of the bridge;
        # back to the port it came from only in hairpin mode.
        if bridging == "br_netfilter":
            web1.reflect_on_port()
        web1.start()
        askers = {"outside": client, "node": node, "other guest": web2.wire, "itself": web1.wire}
        yield Table(request.param == FULL_NAT, askers)


@pytest.mark.parametrize("who", ["outside", "node", "other guest", "itself"])
@families
@protocols
def test_the_guest_answers_and_sees(table: Table, protocol: str, family: int, who: str) -> None:
    """FULL-NAT: always this node. No config: the client itself, where it is not on the bridge."""
    if table.full_nat:
        seen = {NODE_AMONG_GUESTS[family]}
    elif who in {"other guest", "itself"}:
        seen = {NODE_AMONG_GUESTS[family], GATEWAY[family]}  # which one, the kernel chooses
    else:
        seen = {CLIENT[family] if who == "outside" else NODE[family]}
    answer = table.askers[who].asks(NODE[family], 2202, protocol)
    assert answer in {f"web1 saw {address}" for address in seen}

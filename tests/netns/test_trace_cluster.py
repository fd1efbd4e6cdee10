"""`cgw trace` for a guest that another node runs: each node shows its part of the way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cgw_hooks.core.node_config import FULL_NAT, STEER
from tests.lab.domain import guest_uuid
from tests.lab.gateway_config import gateway_config, remote_node_table
from tests.lab.network import NodeAddresses
from tests.netns.cluster import Cluster, cluster, guest_at, inside, uplink
from tests.netns.configs import CLIENT
from tests.netns.parameters import bridgings, families
from tests.netns.tracing import start_trace, trace_tables

HOME = 2
#: web2 in the config of the other node.
REMOTE = f"""
[[remote-guest]]
name = "web2"
uuid = "{guest_uuid(22)}"
address = ["{guest_at("web2", 4)}", "{guest_at("web2", 6)}"]
publish = ["2202:22"]
"""

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module", params=[FULL_NAT, STEER])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Two nodes; web2 runs on the second one."""
    folder: Path = tmp_path_factory.mktemp("cluster")
    with cluster(folder, homes={"web2": 2}, nodes=2) as nodes:
        places = {index: NodeAddresses(index) for index in nodes.nodes}
        for index, node in nodes.nodes.items():
            others = (remote_node_table(places[other]) for other in places if other != index)
            config = gateway_config(places[index], return_path=request.param)
            nodes_text = "".join(others) if request.param == STEER else ""
            node.configure(config + nodes_text + ("" if index == HOME else REMOTE))
            node.cgw("node", "up")
        nodes.guests["web2"].start()
        for node in nodes.nodes.values():
            node.cgw("sync", check=False)
        yield nodes


@bridgings
@families
def test_each_node_shows_its_part(made: Cluster, family: int, bridging: bool) -> None:
    made.pass_bridged_packets_to_rules(bridging)
    entry, home = made.nodes[1], made.nodes[2]
    tracings = [start_trace(node, "web2:2202/tcp") for node in (entry, home)]
    assert made.client.asks(uplink(1, family), 2202).startswith("web2 saw ")
    first, second = (tracing.told() for tracing in tracings)
    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    guest = guest_at("web2", family)
    place = guest if family == 4 else f"[{guest}]"
    own = "" if CLIENT[family] in second.lines[0] else inside(1, family)
    assert f" -> {place}:22 (tcp SYN)" in first.output
    assert "  left by guestbr0 (eth1.100): " in first.output
    assert first.lines[-2].startswith("eth1.100 leads to another node, which runs the guest")
    assert first.end == "the guest answered, and the answer went back"
    assert own in second.lines[0]
    assert "(eth2.100)" in second.lines[0] or "by eth2.100" in second.lines[0]
    assert "guest22" in second.output
    assert second.end.endswith("went back to the node where the client came in")
    assert [trace_tables(node) for node in (entry, home)] == [[], []]


def test_a_rule_of_the_guest_s_node_is_found_there(made: Cluster) -> None:
    made.pass_bridged_packets_to_rules(False)
    entry, home = made.nodes[1], made.nodes[2]
    home.nft("table bridge theirs { chain theirs { type filter hook postrouting priority 0; "
             "tcp dport 22 drop; }; }\n")  # fmt: skip
    tracings = [start_trace(node, "web2:2202/tcp") for node in (entry, home)]
    assert made.client.is_unanswered(uplink(1, 4), 2202)
    first, second = (tracing.told() for tracing in tracings)
    assert "the packet left by guestbr0 (eth1.100) for 10.5.5.22, which another node runs" in (
        first.end
    )
    assert "bridge theirs theirs has dropped the packet, by `tcp dport 22 drop`" in second.end
    home.nft("delete table bridge theirs\n")
    assert made.client.asks(uplink(1, 4), 2202).startswith("web2 saw ")


def test_the_client_s_own_node_is_traced_as_well(made: Cluster) -> None:
    home = made.nodes[2]
    tracing = start_trace(home, "web2:2202/tcp")
    assert made.client.asks(uplink(2, 4), 2202).startswith("web2 saw ")
    told = tracing.told()
    assert told.lines[0].startswith(f"client {CLIENT[4]}:")
    assert told.end == "the guest answered, and the answer went back"

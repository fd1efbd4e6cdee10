"""`cgw status` says what a gateway has lost, and `cgw node up` sets it again."""

import json

import pytest

from cgw_hooks.core.node_config import STEER
from tests.lab.network import GUEST_BRIDGE, NodeAddresses
from tests.netns.node import Node
from tests.return_path.cluster import Cluster
from tests.return_path.way import Way

pytestmark = pytest.mark.return_path

LOSSES = {
    "rule": (["ip", "rule", "delete", "priority", "990"], "has no route of answers by 10.5.5.25"),
    "rule6": (["ip", "-6", "rule", "delete", "priority", "990"], "route of answers by fd00:5::25"),
    "mac": (
        ["ip", "link", "set", GUEST_BRIDGE, "address", "02:00:00:00:00:77"],
        f"has lost the MAC address {NodeAddresses(1).bridge_mac} of {GUEST_BRIDGE}",
    ),
    "address": (
        ["ip", "address", "delete", "10.5.5.254/24", "dev", GUEST_BRIDGE],
        f"has lost the address 10.5.5.254 of {GUEST_BRIDGE}",
    ),
}


def complaints(node: Node) -> list[str]:
    said = json.loads(node.cgw("status", "--json", check=False).stdout)
    return [p["message"] for p in said["problems"] if p["code"] == "gateway"]


@pytest.mark.parametrize("return_path", [STEER], indirect=True)
@pytest.mark.parametrize(("command", "message"), LOSSES.values(), ids=LOSSES)
def test_what_a_steering_gateway_has_lost_is_said_and_set_again(
    made: Cluster, command: list[str], message: str
) -> None:
    node, way = made.nodes[1], Way(made, made.put("web2", 1), 2, 4)
    assert complaints(node) == []
    node.namespace.run(command)
    assert [message in text for text in complaints(node)] == [True]
    node.cgw("node", "up")
    assert complaints(node) == []
    assert way.asks("client") == f"web2 saw {way.seen()}"

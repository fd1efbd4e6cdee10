"""A guest bridge that runs a spanning tree keeps a guest silent that arrives: status tells."""

import pytest

from tests.lab.network import GUEST_BRIDGE
from tests.lab.status_json import read_status
from tests.netns.configs import FULL_NAT
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node

pytestmark = pytest.mark.netns


def problems(node: Node) -> tuple[int, list[dict[str, str]]]:
    """The exit code of `cgw status`, and what is wrong with the node."""
    ended = node.cgw("status", "--json", check=False)
    return ended.returncode, read_status(ended.stdout)["problems"]


@pytest.mark.parametrize(("delay", "silent"), [("200", "4 s"), ("1500", "30 s")])
def test_status_tells_for_how_long_a_guest_that_arrives_is_silent(
    make_node: NodeMaker, delay: str, silent: str
) -> None:
    node = make_node(FULL_NAT)
    node.guest("web1", "2202:22", serves="22/tcp").start()
    assert problems(node) == (0, [])
    node.namespace.ip(f"link set {GUEST_BRIDGE} type bridge stp_state 1 forward_delay {delay}")
    node.guest("web2", serves="22/tcp")
    port = node.namespace.run(["bridge", "link", "show", "dev", "guest12"]).stdout
    assert "state listening" in port
    code, (problem,) = problems(node)
    assert (code, problem["code"], problem["subject"]) == (1, "spanning-tree", GUEST_BRIDGE)
    assert problem["message"].endswith(f"a guest that arrives is silent for {silent}")
    node.namespace.ip(f"link set {GUEST_BRIDGE} type bridge stp_state 0")
    assert problems(node) == (0, [])

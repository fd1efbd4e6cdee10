"""`full-mesh`: three nodes in a ring, each with a link to every other one, and no spanning tree.

A frame that comes in by one inter-node device reaches this node's guests, and never goes on to
another node: its sender has a link of its own to that one.
"""

import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.namespace import veth
from tests.lab.network import GUEST_BRIDGE, INTERNODE_DEVICES
from tests.netns.capture import Capture
from tests.netns.cluster import Cluster, all_up, cluster, guest_at, guest_number, inside, uplink
from tests.netns.node import PYTHON, Node
from tests.netns.parameters import families

pytestmark = pytest.mark.netns

OUT, BACK = INTERNODE_DEVICES
HOMES = {"web1": 1, "web2": 2, "web3": 3}
NOBODY = "10.5.5.99"
ON, OFF, NO_PORT = "on", "off", "no port"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, up, without a spanning tree."""
    with cluster(tmp_path_factory.mktemp("mesh"), homes=HOMES, full_mesh=True) as made:
        made.pass_bridged_packets_to_rules(False)
        all_up(made)
        yield made


@pytest.fixture
def node(mesh: Cluster) -> Iterator[Node]:
    """The second node, down. The other two stay up, and keep the ring from passing frames round."""
    node = mesh.nodes[2]
    node.cgw("node", "down")
    yield node
    for device in INTERNODE_DEVICES:
        isolate(node, device, OFF)
    assert "note" not in node.cgw("node", "up").stdout
    for guest in mesh.guests.values():
        assert node.hook(guest.name, "started", "-", guest.xml).exit_code == 0


def isolated(node: Node) -> dict[str, str]:
    """What `bridge link` says of the flag of each inter-node port of the node's guest bridge."""
    return {device: _isolated(node, device) for device in INTERNODE_DEVICES}


def _isolated(node: Node, device: str) -> str:
    said = node.namespace.run(["bridge", "-d", "link", "show", "dev", device]).stdout.split()
    return said[said.index("isolated") + 1] if GUEST_BRIDGE in said else NO_PORT


def isolate(node: Node, device: str, flag: str) -> None:
    """Set the flag as an admin does."""
    node.namespace.run(["bridge", "link", "set", "dev", device, "isolated", flag])


def knock(mesh: Cluster) -> None:
    """Send a frame to every host of the guest network: web1 asks by ARP for an address of nobody.

    It comes to node2 by eth2.100, from node1.
    """
    web1 = mesh.asker("web1")
    web1.namespace.ip("neigh flush all")
    assert web1.is_unanswered(NOBODY, 22)


def heard(mesh: Cluster) -> dict[str, bool]:
    """Where the question of `knock` passes: in by a device, to web2, and out by the other one."""
    second = mesh.nodes[2].namespace
    places = {"in": (second, BACK), "web2": (mesh.asker("web2").namespace, "eth0"),
              "onward": (second, OUT)}  # fmt: skip
    captures = {place: Capture(*where) for place, where in places.items()}
    knock(mesh)
    found = {
        place: any(f.about == NOBODY and f.sent == (place == "onward") for f in capture.frames())
        for place, capture in captures.items()
    }
    for capture in captures.values():
        capture.close()
    return found


def test_a_frame_from_another_node_reaches_guests_here_and_no_third_node(mesh: Cluster) -> None:
    assert heard(mesh) == {"in": True, "web2": True, "onward": False}
    assert isolated(mesh.nodes[2]) == {OUT: ON, BACK: ON}


def test_every_link_of_the_mesh_is_in_use(mesh: Cluster) -> None:
    for node in mesh.nodes.values():
        said = node.namespace.run(["bridge", "link"]).stdout
        ports = [line for line in said.splitlines() if f"master {GUEST_BRIDGE}" in line]
        assert len([port for port in ports if "state forwarding" in port]) == len(ports) == 3


def test_without_full_mesh_a_node_passes_the_frame_on(mesh: Cluster, node: Node) -> None:
    """What the flag is for: the same frame while the node is down."""
    assert heard(mesh) == {"in": True, "web2": True, "onward": True}
    assert isolated(node) == {OUT: OFF, BACK: OFF}


@families
@pytest.mark.parametrize("guest", HOMES)
@pytest.mark.parametrize("entry", HOMES.values())
def test_every_guest_answers_through_every_node(
    mesh: Cluster, entry: int, guest: str, family: int
) -> None:
    port = 2200 + guest_number(guest)
    answer = mesh.client.asks(uplink(entry, family), port)
    assert answer == f"{guest} saw {inside(entry, family)}"


@families
@pytest.mark.parametrize("who", HOMES)
@pytest.mark.parametrize("guest", HOMES)
def test_guests_of_all_nodes_see_each_other(
    mesh: Cluster, guest: str, who: str, family: int
) -> None:
    mesh.asker(who).namespace.ip("neigh flush all")
    assert mesh.asker(who).asks(guest_at(guest, family), 22) == (
        f"{guest} saw {guest_at(who, family)}"
    )


def test_up_says_what_it_sets_and_down_what_it_gives_back(node: Node) -> None:
    said = node.cgw("node", "up").stdout
    assert [f"set    {device} isolated (full-mesh)" in said for device in (OUT, BACK)] == [True] * 2
    assert isolated(node) == {OUT: ON, BACK: ON}
    assert "isolated" not in node.cgw("node", "up").stdout  # what is there stays
    down = node.cgw("node", "down").stdout.splitlines()
    # The last change is given back first.
    assert down[:2] == [f"set    {BACK} isolated off", f"set    {OUT} isolated off"]
    assert isolated(node) == {OUT: OFF, BACK: OFF}


def test_a_flag_that_was_set_before_up_stays_after_down(node: Node) -> None:
    isolate(node, OUT, ON)
    node.cgw("node", "up")
    assert isolated(node) == {OUT: ON, BACK: ON}
    node.cgw("node", "down")
    assert isolated(node) == {OUT: ON, BACK: OFF}


def test_a_flag_that_somebody_cleared_since_stays_cleared(node: Node) -> None:
    node.cgw("node", "up")
    isolate(node, OUT, OFF)
    said = node.cgw("node", "down").stdout
    assert f"set    {OUT}" not in said
    assert isolated(node) == {OUT: OFF, BACK: OFF}


def test_a_port_that_somebody_moved_to_another_bridge_stays_as_it_is(node: Node) -> None:
    node.cgw("node", "up")
    node.namespace.ip(f"link add theirs0 type bridge\nlink set {OUT} master theirs0\n")
    isolate(node, OUT, ON)
    node.cgw("node", "down")
    listed = node.namespace.run(["bridge", "-d", "link", "show", "dev", OUT]).stdout
    node.namespace.ip(f"link set {OUT} master {GUEST_BRIDGE}\nlink delete theirs0\n")
    assert "isolated on" in listed


def test_a_device_that_comes_later_is_isolated_when_up_runs_again(
    mesh: Cluster, node: Node
) -> None:
    node.namespace.ip(f"link set {OUT} nomaster")
    note = f"note   {OUT}: no port of {GUEST_BRIDGE} yet; when it is, run again: cgw node up"
    assert note in node.cgw("node", "up").stdout
    assert isolated(node) == {OUT: NO_PORT, BACK: ON}
    node.namespace.ip(f"link delete {OUT}")
    assert note in node.cgw("node", "up").stdout
    third = mesh.nodes[3].namespace
    veth(node.namespace, OUT, third, BACK)
    node.namespace.ip(f"link set {OUT} master {GUEST_BRIDGE}")
    third.ip(f"link set {BACK} master {GUEST_BRIDGE}")
    assert f"set    {OUT} isolated" in node.cgw("node", "up").stdout
    assert f"set    {BACK} isolated" in mesh.nodes[3].cgw("node", "up").stdout
    assert isolated(node) == {OUT: ON, BACK: ON}


_KILLED = """
import os, signal, sys
from cgw_hooks.commands import terminal
from cgw_hooks.host import links
real = links.set_isolated
def deadly(*arguments):
    if sys.argv[1] == "after":
        real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
links.set_isolated = deadly
sys.exit(terminal.main(["node", "up"]))
"""


@pytest.mark.parametrize(("moment", "flag"), [("before", OFF), ("after", ON)])
def test_killed_at_the_change_up_can_be_given_back(node: Node, moment: str, flag: str) -> None:
    killed = subprocess.run(
        [*node.namespace.enter_command(), str(PYTHON), "-c", _KILLED, moment],
        env=node.environment(), cwd="/", check=False, capture_output=True,
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr.decode()
    assert isolated(node) == {OUT: flag, BACK: OFF}
    node.cgw("node", "down")
    assert isolated(node) == {OUT: OFF, BACK: OFF}

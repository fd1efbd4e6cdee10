"""docs/examples/pacemaker: what Pacemaker calls on each node that is left after a fencing."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.documents import ROOT
from tests.libvirt.waiting import eventually
from tests.netns.asker import REFUSED
from tests.netns.node import CGW
from tests.registry.cluster import RegistryCluster, registry_cluster

pytestmark = pytest.mark.registry

AGENT = ROOT / "docs/examples/pacemaker/cgw-forget-fenced"
PORT = 2201
#: What Pacemaker 2.1.5 (Debian 12) gave to an alert agent for a node that was switched off.
FENCED = {
    "CRM_alert_kind": "fencing",
    "CRM_alert_version": "2.1.5",
    "CRM_alert_recipient": "",
    "CRM_alert_node_sequence": "7",
    "CRM_alert_timestamp": "22:15:01.000000",
    "CRM_alert_node": "node1",
    "CRM_alert_task": "st_notify_fence",
    "CRM_alert_desc": (
        "Operation off of node1 by node2 for stonith_admin.123@node2: OK (ref=cf943f6a-6e9f)"
    ),
    "CRM_alert_rc": "0",
}
#: What must not forget anything, and what Pacemaker gives then.
OTHERS = {
    "the fencing has failed": {
        "CRM_alert_rc": "-61",
        "CRM_alert_desc": "Operation off of node1 by node2 for stonith_admin.145@node2: Error",
    },
    "the fencing has timed out": {"CRM_alert_rc": "-62"},
    "without a result": {"CRM_alert_rc": ""},
    "the node is unfenced": {"CRM_alert_desc": "Operation on of node1 by node2 for x@node2: OK"},
    "unfenced, by Pacemaker 3": {"CRM_alert_desc": "Operation 'on' targeting node1 by node2: OK"},
    "the node was lost": {"CRM_alert_kind": "node", "CRM_alert_desc": "lost"},
    "a resource": {"CRM_alert_kind": "resource", "CRM_alert_task": "stop"},
    "another node": {"CRM_alert_node": "node9"},
    "an option": {"CRM_alert_node": "--help"},
    "no node": {"CRM_alert_node": ""},
}


@pytest.fixture(scope="module")
def bereft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryCluster]:
    """Three nodes; the first one has published web1, and is dead."""
    with registry_cluster(tmp_path_factory.mktemp("cluster"), "bookworm") as made:
        made.start_agents()
        made.guest("web1").start()
        made.until_open(PORT, "web1")
        made.kill_agent(1)
        yield made


def alert(made: RegistryCluster, number: int, **variables: str) -> "subprocess.Popen[bytes]":
    """Start the alert agent on a node, as its executor does."""
    node = made.nodes[number]
    return subprocess.Popen(
        [*node.namespace.enter_command(), str(AGENT)],
        env=node.environment() | FENCED | {"cgw": str(CGW)} | variables, cwd="/",
    )  # fmt: skip


def open_at(made: RegistryCluster) -> list[int]:
    return [number for number, answer in made.answers(PORT).items() if answer != REFUSED]


@pytest.mark.parametrize("event", OTHERS)
def test_nothing_is_forgotten_unless_a_node_was_fenced(bereft: RegistryCluster, event: str) -> None:
    before = bereft.keys()
    assert before
    assert alert(bereft, 2, **OTHERS[event]).wait(60) == 0
    assert bereft.keys() == before
    assert open_at(bereft) == [1, 2, 3]


def test_without_etcd_the_agent_fails_and_nothing_is_forgotten(bereft: RegistryCluster) -> None:
    before = bereft.keys()
    bereft.etcd.kill()
    assert alert(bereft, 2).wait(60) == 9
    bereft.etcd.start()
    assert bereft.keys() == before
    assert open_at(bereft) == [1, 2, 3]


def test_a_node_that_was_fenced_is_forgotten_by_all_that_are_left(bereft: RegistryCluster) -> None:
    started = [alert(bereft, number) for number in (2, 3)]
    assert [one.wait(60) for one in started] == [0, 0]
    assert eventually(lambda: open_at(bereft) == [1]), "the fenced node of this lab still runs"
    assert bereft.keys() == {}

"""Publish once, open on every node: what clients meet while guests start, stop and move."""

from functools import partial

import pytest

from cgw_hooks.errors import NotFound, PortConflict
from tests.lab import domain
from tests.lab.server import serve
from tests.libvirt.waiting import eventually
from tests.netns.asker import REFUSED, TIMED_OUT
from tests.netns.cluster import uplink
from tests.netns.guest import annotated
from tests.netns.node import Node
from tests.registry.cluster import RegistryCluster, arrive, has_homes, hook, leave

pytestmark = pytest.mark.registry
NOBODY = {REFUSED, TIMED_OUT}


def test_a_guest_is_open_at_every_node_and_closed_at_all(made: RegistryCluster) -> None:
    guest = made.guest("web1")
    guest.start()
    made.until_open(2201, "web1")
    guest.stop("shutdown")
    made.until_closed(2201)


def test_a_port_that_is_published_later_opens_at_every_node(made: RegistryCluster) -> None:
    guest = made.guest("web1")
    guest.start()
    made.until_open(2201, "web1")
    more = annotated(guest, "2201:22/tcp", "2299:22/tcp")
    assert made.nodes[1].hook(guest.name, "reconnect", "-", more).exit_code == 0
    made.until_open(2299, "web1")
    assert made.nodes[1].hook(guest.name, "reconnect", "-", guest.xml).exit_code == 0
    made.until_closed(2299)
    made.until_open(2201, "web1")


def test_a_limit_for_one_client_holds_at_every_node_by_itself(made: RegistryCluster) -> None:
    guest = made.guest("web1")
    limited = annotated(guest, "2201:22/tcp", "2299:22/tcp limit 2/hour")
    guest.start(xml=limited)
    made.until_open(2201, "web1")
    assert eventually(lambda: all(is_limited(node) for node in made.nodes.values()))
    for number in made.nodes:
        there = uplink(number, 4)
        answered = [not made.client.is_unanswered(there, 2299) for _ in range(3)]
        assert (number, answered) == (number, [True, True, False])
    guest.stop("shutdown", xml=limited)
    made.until_closed(2299)
    assert eventually(lambda: not any(is_limited(node) for node in made.nodes.values()))


def is_limited(node: Node) -> bool:
    """Whether a chain of a limit is there."""
    return "chain limit_2_hour " in node.nft("list chains inet\n")


def test_the_same_port_on_another_node_is_refused_by_its_owners_name(
    made: RegistryCluster,
) -> None:
    made.guest("web1").start()
    made.until_open(2201, "web1")
    other = made.guest("web2")
    refused = other.hook("prepare", xml=annotated(other, "2201:22/tcp"))
    assert refused.exit_code == PortConflict.exit_code
    assert 'port *:2201/tcp is published by guest "web1" of another node' in refused.complaint
    assert set(made.keys()) == {f"/cgw/v1/guests/{domain.guest_uuid(21)}/node1"}
    made.until_open(2201, "web1")
    other.hooked.clear()


def test_a_port_that_was_given_up_a_moment_ago_is_free_on_another_node(
    made: RegistryCluster,
) -> None:
    one, other = made.guest("web1"), made.guest("web2")
    same = annotated(other, "2201:22/tcp")
    for _ in range(5):
        one.start()
        made.until_open(2201, "web1")
        one.stop("shutdown")
        assert other.hook("prepare", xml=same).exit_code == 0
        assert other.hook("started", xml=same).exit_code == 0
        made.until_open(2201, "web2")
        other.stop("shutdown", xml=same)
        made.until_closed(2201)


def test_a_guest_that_migrates_is_never_closed(made: RegistryCluster) -> None:
    guest = made.guest("web1")
    guest.start()
    made.until_open(2201, "web1")
    with made.connecting(2201) as connections:
        for source, target in ((1, 2), (2, 3), (3, 1)):
            arrive(made.nodes[target], guest)
            leave(made.nodes[source], guest)
            assert eventually(partial(has_homes, made, f"node{target}"))
    assert connections.made > 10
    assert connections.failed == []


def test_a_migration_that_fails_closes_nothing(made: RegistryCluster) -> None:
    guest = made.guest("web1")
    guest.start()
    made.until_open(2201, "web1")
    with made.connecting(2201) as connections:
        for operation in ("migrate", "prepare", "start"):
            assert hook(made.nodes[2], guest, operation) == 0
        assert eventually(partial(has_homes, made, "node1", "node2"))
        leave(made.nodes[2], guest, "failed")
        assert eventually(partial(has_homes, made, "node1"))
    assert connections.failed == []
    made.until_open(2201, "web1")


def test_another_name_at_the_destination_is_the_same_guest(made: RegistryCluster) -> None:
    guest = made.guest("web1")
    guest.start()
    made.until_open(2201, "web1")
    renamed = guest.xml.replace("<name>web1</name>", "<name>web1-new</name>")
    with made.connecting(2201) as connections:
        for operation in ("prepare", "started"):
            done = made.nodes[2].hook("web1-new", operation, "-", renamed)
            assert done.exit_code == 0
        leave(made.nodes[1], guest)
        assert eventually(lambda: "web1-new" in "".join(made.keys().values()))
    assert connections.failed == []
    made.nodes[2].hook("web1-new", "stopped", "-", renamed)
    made.nodes[2].hook("web1-new", "release", "shutdown", renamed)
    guest.hooked.clear()


def test_status_of_the_cluster_names_node_ports_and_where_they_are_open(
    made: RegistryCluster,
) -> None:
    made.guest("web1").start()
    made.until_open(2201, "web1")
    for number in made.nodes:
        found = made.status(number)
        assert found["problems"] == []
        assert {node["node"] for node in found["nodes"]} == {"node1", "node2", "node3"}
        rows = [r for r in found["published"] if (r["protocol"], r["family"]) == ("tcp", 4)]
        assert [(r["guest"], r["node"], r["state"]) for r in rows] == [("web1", "node1", "open")]
        assert rows[0]["nodes"] == {"node1": "open", "node2": "open", "node3": "open"}
        shown = made.nodes[number].cgw("status", "--cluster")
        assert "node1, node2, node3" in shown.stdout
        assert made.nodes[number].cgw("status", "--cluster", "web1").stdout.count("web1 ") == 6
        graph = made.nodes[number].cgw("status", "--cluster", "--graph").stdout
        assert '"node2" -> "guest web1" [style=solid' in graph


def test_status_of_the_cluster_of_a_guest_that_nobody_publishes_says_so(
    made: RegistryCluster,
) -> None:
    done = made.nodes[1].cgw("status", "--cluster", "web9", check=False)
    assert (done.returncode, done.stdout) == (NotFound.exit_code, "")
    assert "no node publishes a guest of this name" in done.stderr


def test_a_port_that_a_node_itself_uses_is_closed_at_this_node_alone(
    made: RegistryCluster,
) -> None:
    node = made.nodes[2]
    with serve(node.namespace, "0.0.0.0", "tcp", 2201, "node2"):
        made.guest("web1").start()
        assert eventually(lambda: made.answers(2201)[3].startswith("web1"))
        assert eventually(
            lambda: (
                made.status(3)["published"]
                and all(
                    row["nodes"].get("node2") == "closed"
                    for row in made.status(3)["published"]
                    if (row["protocol"], row["family"]) == ("tcp", 4)
                )
            )
        ), made.status(3)
        assert not made.answers(2201)[2].startswith("web1")
    made.until_open(2201, "web1")

"""What a foe, a faulty program or another version writes: it is said, and harms nothing else."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from cgw_hooks.core.guest import REGISTRY, GuestKey
from tests.lab import domain, network
from tests.lab.network import NodeAddresses
from tests.libvirt.waiting import eventually
from tests.netns.node import Node
from tests.registry.cluster import RegistryCluster, is_fine

pytestmark = pytest.mark.registry

PORT = ["tcp", "0.0.0.0", 2666, 2666, 22, network.guest_address(66), []]


def value(**members: Any) -> str:
    """A good value of a guest named foe, with some members replaced."""
    return json.dumps({"version": 1, "name": "foe", "ports": [PORT], **members})


def with_port(place: int, found: object, start: int = 2666) -> str:
    """A good value whose port has another field at this place."""
    port = [*PORT[:2], start, start, *PORT[4:]]
    return value(ports=[[*port[:place], found, *port[place + 1 :]]])


UNUSABLE = {
    "no JSON": "{",
    "empty": "",
    "deep": "[" * 100_000,
    "huge": value(name="x" * (600 << 10)),
    "of another version": value(version=3),
    "name with an escape sequence": value(name="\x1b[31mfoe"),
    "name with a line break": value(name="foe\nweb1"),
    "no list": value(ports=7),
    "rule as a protocol": with_port(0, "tcp } ; flush ruleset"),
    "rule as an address": with_port(5, "10.5.5.66; flush ruleset"),
    "rule as a source": with_port(6, ["0.0.0.0/0 }; flush ruleset"]),
    "port 0": with_port(2, 0),
    "port as text": with_port(2, "2666"),
    "port beyond the last one": with_port(3, 70_000),
    "ports without end": value(ports=[PORT] * 5_000),
    "ports that go on beyond the last one": value(
        ports=[["tcp", "0.0.0.0", 2666, 60_000, 60_000, network.guest_address(66), []]]
    ),
    "two families": with_port(5, network.guest_address6(66)),
    "itself": with_port(5, "127.0.0.1"),
    "everybody": with_port(5, "0.0.0.0"),
    "listens at a loopback address": with_port(1, "127.0.0.1"),
}
#: These are values, but no node may aim a port there.
AIMS = {
    "credentials of a cloud": "169.254.169.254",
    "outside the guest networks": "192.0.2.7",
    "the client": network.CLIENT_ADDRESS,
    "the gateway": network.GATEWAY_ADDRESS,
    "broadcast": "10.5.5.255",
}


@pytest.fixture(autouse=True)
def without_evil(made: RegistryCluster) -> Iterator[None]:
    """Nothing of a foe is left after a test that has failed."""
    yield
    made.etcd.etcdctl("del", "--prefix", f"/cgw/v1/guests/{domain.guest_uuid(0)[:-4]}")


def write(made: RegistryCluster, octet: int, text: str, node: str = "evil") -> str:
    """Write a value as the entry of a node that is none; return the guest's uuid."""
    uuid = domain.guest_uuid(octet)
    key = f"/cgw/v1/guests/{uuid}/{node}"
    if text:
        made.etcd.etcdctl("put", key, given=text)
    else:
        made.etcd.etcdctl("put", key, "")
    return uuid


def test_a_hostile_value_is_said_at_each_node_and_harms_no_other_guest(
    made: RegistryCluster,
) -> None:
    made.guest("web1").start()
    made.until_open(2201, "web1")
    texts = [*UNUSABLE.values()]
    texts += [with_port(5, at, 2700 + n) for n, at in enumerate(AIMS.values())]
    uuids = [write(made, 100 + number, text) for number, text in enumerate(texts)]
    made.guest("web2").start()
    made.until_open(2202, "web2")
    for number in made.nodes:
        assert eventually(partial(are_problems, made, number, uuids)), number
        rules = made.nodes[number].ruleset()
        ports = (f". {port} :" for port in (2666, *range(2700, 2700 + len(AIMS))))
        assert [port for port in ports if port in rules] == []
        assert not any(at in made.nodes[number].our_table() for at in ("169.254.169", "192.0.2.7"))
        said = made.nodes[number].cgw("status", check=False)
        assert "\x1b" not in said.stderr
        assert all(line.startswith("cgw: ") for line in said.stderr.splitlines())
    made.guest("web1").stop("shutdown")
    made.until_closed(2201)
    made.guest("web1").start()
    made.until_open(2201, "web1")
    forget_evil(made)


def are_problems(made: RegistryCluster, number: int, uuids: list[str]) -> bool:
    """Whether each of these guests has a problem at a node."""
    state = made.nodes[number].state
    records = [state.peek(GuestKey(REGISTRY, uuid)) for uuid in uuids]
    return all(record and record.problem for record in records)


def forget_evil(made: RegistryCluster) -> None:
    """Do what an admin does about it, and see that all is well then."""
    made.nodes[3].cgw("registry", "forget", "evil")
    for node in made.nodes.values():
        assert eventually(partial(is_fine, node)), node.cgw("status", check=False).stderr


def test_a_value_that_aims_at_a_nodes_own_address_is_refused_there(made: RegistryCluster) -> None:
    for number in made.nodes:
        own = NodeAddresses(number).guest_network
        uuid = write(made, 100 + number, with_port(5, own, 2700 + number))
        assert eventually(partial(are_problems, made, number, [uuid]))
        assert f"{2700 + number}" not in made.nodes[number].our_table()
        assert "own address" in made.nodes[number].cgw("status", check=False).stderr
    forget_evil(made)


def test_a_value_with_a_port_of_a_running_guest_takes_nothing_from_it(
    made: RegistryCluster,
) -> None:
    made.guest("web1").start()
    made.until_open(2201, "web1")
    before = made.keys()
    with made.connecting(2201) as connections:
        theft = value(ports=[["tcp", "0.0.0.0", 2200, 2210, 2200, network.guest_address(22), []]])
        uuid = write(made, 100, theft)
        for number in made.nodes:
            assert eventually(partial(are_problems, made, number, [uuid])), number
            said = made.nodes[number].cgw("status", check=False).stderr
            assert 'guest "foe": port *:2201/tcp is published by guest "web1"' in said
        made.until_open(2201, "web1")
        made.guest("web2").start()
        made.until_open(2202, "web2")
    assert connections.failed == []
    assert before.items() <= made.keys().items()
    forget_evil(made)


def test_keys_that_no_node_of_this_version_writes_are_said(made: RegistryCluster) -> None:
    made.guest("web1").start()
    made.until_open(2201, "web1")
    uuid = domain.guest_uuid(100)
    for key in (
        f"/cgw/v2/guests/{uuid}/node9",
        "/cgw/v1/guests/web1/node9",
        f"/cgw/v1/guests/{uuid}",
        f"/cgw/v1/guests/{uuid}/a/b",
    ):
        made.etcd.etcdctl("put", key, value())
        for node in made.nodes.values():
            assert eventually(partial(is_said, node, key))
        made.etcd.etcdctl("del", key)
        for node in made.nodes.values():
            assert eventually(partial(is_fine, node))
    made.until_open(2201, "web1")


def is_said(node: Node, key: str) -> bool:
    """Whether a node names a key as a problem."""
    return key in node.cgw("registry", "status", check=False).stderr


def test_a_presence_that_is_none_and_a_serial_that_is_none_harm_nothing(
    made: RegistryCluster,
) -> None:
    made.guest("web1").start()
    made.until_open(2201, "web1")
    for text in (
        "{",
        "x" * (600 << 10),
        '{"version": 1, "networks": 7, "closed": [], "since": "x"}',
    ):
        made.etcd.etcdctl("put", "/cgw/v1/nodes/evil", given=text)
        made.etcd.etcdctl("put", "/cgw/v1/serial", given=text)
    made.guest("web2").start()
    made.until_open(2202, "web2")
    assert {node["node"] for node in made.status(1)["nodes"]} >= {"node1", "node2", "node3"}
    made.etcd.etcdctl("del", "/cgw/v1/nodes/evil")
    made.until_open(2201, "web1")

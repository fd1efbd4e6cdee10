"""Each broken host: the doctor names the fault first, and its cure, as printed, works."""

from dataclasses import replace

import pytest

from tests.doctor.broken_hosts import FAULTS, PORT, Fault
from tests.doctor.doctor import examine, faults, type_command
from tests.full import extended
from tests.lab.domain import BRIDGE
from tests.lab.network import GUEST_BRIDGE
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node

pytestmark = pytest.mark.doctor


def start_guest(node: Node, fault: Fault) -> None:
    """Start the guest, on a plain bridge or on a libvirt network."""
    interface = "default" if fault.is_in_network else BRIDGE
    guest = node.guest(
        "web1", f"{PORT}:22", serves="22/tcp", family=fault.family, interface=interface
    )
    named = f'<source network="default" bridge="{GUEST_BRIDGE}"/>'
    xml = guest.xml.replace('<source network="default"/>', named)
    node.guests[0] = replace(guest, xml=xml)
    node.guests[0].start()


@pytest.mark.parametrize(
    "name", [extended(name) if FAULTS[name].is_extended else name for name in FAULTS]
)
def test_the_fault_is_first_and_its_cure_works(
    name: str, client: Asker, make_node: NodeMaker
) -> None:
    fault = FAULTS[name]
    node = make_node(fault.config)
    if fault.is_gateway:
        node.cgw("node", "up")
    if fault.prepare:
        fault.prepare(node, client)
    start_guest(node, fault)
    seen = NODE_AMONG_GUESTS if fault.config == FULL_NAT else CLIENT
    answer = f"web1 saw {fault.sees or seen[fault.family]}"
    assert client.asks(NODE[fault.family], PORT) == answer
    assert faults(node) == []
    fault.make(node)
    assert client.is_unanswered(NODE[fault.family], PORT)
    first = examine(node)[0]
    assert (first["verdict"], first["check"]) == ("fail", fault.check), first
    said = f"{first['problem']['subject']}: {first['problem']['message']}"
    assert [word for word in fault.names if word not in said] == [], said
    type_command(node, first["command"])
    assert client.asks(NODE[fault.family], PORT) == answer
    assert faults(node) == []
    node.stop_all_guests()  # this also takes an exception out of libvirt's table
    node.accept_foreign_tables()

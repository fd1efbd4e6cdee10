"""The guest that the cluster's tests, benchmark and demo move from node to node."""

from tests.lab.client import Client
from tests.lab.cluster import Cluster
from tests.lab.domain import domain_xml, guest_uuid
from tests.lab.network import guest_address
from tests.lab.node import Node
from tests.lab.traffic import Ports

NAME = "web1"
OCTET = 202
ADDRESS = guest_address(OCTET)
PORTS = Ports(session=2207, connection=8080, datagram=123)
RECORD = f"/run/cgw/guests/qemu-{guest_uuid(OCTET)}.json"
"""Where a node has the guest's record while it runs there, or is about to."""


def _port_forward(protocol: str, listen: int, target: int) -> str:
    port_range = f'<cgw:range start="{listen}" to="{target}"/>'
    return f'<cgw:portForward proto="{protocol}">{port_range}</cgw:portForward>'


def publish(ports: Ports) -> str:
    """The port forwards of a guest with these listening ports."""
    return (
        _port_forward("tcp", ports.session, 7)
        + _port_forward("tcp", ports.connection, 80)
        + _port_forward("udp", ports.datagram, 123)
    )


PUBLISH = publish(PORTS)


def start(cluster: Cluster, *, has_registry: bool = False) -> None:
    """Start the guest on the first node, published on all; it answers when this returns.

    Without a registry, all nodes get an entry of it. Raises TimeoutError when it does not answer.
    """
    if not has_registry:
        cluster.publish_everywhere(NAME, definition())
    cluster.node.define(definition())
    cluster.node.start(NAME)
    client = Client(cluster.client)
    for entry in entries(cluster):
        reply = client.until_answered("tcp", entry, PORTS.connection)
        if not reply.answered:
            raise TimeoutError(f"{NAME} through {entry}: {reply.outcome.value}")


def definition() -> str:
    """The guest's definition."""
    return domain_xml(NAME, octet=OCTET, publish=PUBLISH, publish_address=ADDRESS)


def round_trip(cluster: Cluster) -> list[tuple[Node, Node]]:
    """The moves, as (from, to), that take the guest round all nodes, and round the other way back.

    Every ordered pair of the three nodes is there once; it starts and ends on the first node.
    """
    first, second, third = cluster.nodes
    there = [(first, second), (second, third), (third, first)]
    return there + [(destination, source) for source, destination in reversed(there)]


def entries(cluster: Cluster) -> dict[str, str]:
    """Entry address -> the source address that the guest sees for it."""
    return {node.addresses.uplink: cluster.seen_as(node) for node in cluster.nodes}


def crashes(cluster: Cluster) -> int:
    """How often the guest's kernel has crashed so far, by the logs of all nodes."""
    logs = [node.path(f"/var/log/libvirt/qemu/{NAME}.log") for node in cluster.nodes]
    return sum(log.read_text().count("reason=crashed") for log in logs if log.exists())

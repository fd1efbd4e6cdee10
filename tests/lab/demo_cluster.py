"""The demo's second part: one guest, published on three gateways, moves from node to node."""

import shlex

from tests.lab import migrating_guest as guest
from tests.lab.client import Client
from tests.lab.cluster import Cluster, migrate_command, open_cluster
from tests.lab.lab import chosen_suite
from tests.lab.narration import DETAIL, DemoError, say, step
from tests.lab.network import GATEWAY_ADDRESS
from tests.lab.node import Node
from tests.lab.progress import progress
from tests.lab.traffic import Stream, traffic, wait_for_answers

NAME = "guests.example"
_MILLISECONDS = 1000


def show() -> None:
    """Make a cluster, show what its clients see, take it down. Raises DemoError, HostError."""
    with open_cluster() as cluster:
        say(f"lab: Debian {chosen_suite()}, {len(cluster.nodes)} nodes in a full mesh, a client")
        for node in cluster.nodes:
            addresses = f"{node.addresses.uplink:16}{node.addresses.guest_network:12}"
            say(f"{DETAIL}{node.name}  {addresses}gateway {GATEWAY_ADDRESS}, by cgw node up")
        cluster.serve_name(NAME)
        with step(f"virsh start {guest.NAME} on {cluster.node.name}"), progress("waiting for it"):
            guest.start(cluster)
        _show_entries(cluster)
        _show_migration(cluster)


def _show_entries(cluster: Cluster) -> None:
    """The name leads to every node in turn, and each of them to the guest."""
    seen = set()
    for _ in cluster.nodes:
        address = cluster.resolve(NAME)
        with step(f"client asks dnsmasq for {NAME}: {address}"):
            reply = Client(cluster.client).tcp(address, guest.PORTS.connection)
            if (reply.guest, reply.peer) != (guest.NAME, guest.entries(cluster)[address]):
                raise DemoError(f"{address}:{guest.PORTS.connection} gave {reply}")
            say(f"{DETAIL}{reply.guest} answers; it saw the node as {reply.peer}")
        seen.add(address)
    if len(seen) != len(cluster.nodes):
        raise DemoError(f"the name led to {sorted(seen)} only")


def _show_migration(cluster: Cluster) -> None:
    say("- client begins a TCP session, UDP exchanges and new connections, through every node")
    entries = guest.entries(cluster)
    with traffic(cluster.client, entries, guest.PORTS, guest.NAME) as streams:
        for source, destination in guest.round_trip(cluster):
            _migrate(source, destination)
        wait_for_answers(streams)
    for entry in entries:
        for stream in (stream for stream in streams if stream.entry == entry):
            _tell(stream)


def _migrate(source: Node, destination: Node) -> None:
    command = migrate_command(guest.NAME, destination, "--live")
    with step(f"{shlex.join(command)}   # on {source.name}"), progress("migrating"):
        source.run(command)


def _tell(stream: Stream) -> None:
    if stream.failures:
        raise DemoError(f"{stream.kind} through {stream.entry}: {stream.failures[0]}")
    gap = stream.longest_gap * _MILLISECONDS
    say(
        f"{DETAIL}{stream.entry}  {stream.kind:20}{len(stream.answers):4} answers, "
        f"0 failures, longest pause {gap:4.0f} ms"
    )

"""The demo's second part: published once, open on three gateways, whatever happens to one of them.

The return path is "steer", so the guests see the client's own address. web1 moves from node to node
while its clients stay connected; the leader of etcd is killed. Then a node loses its power, in the
middle of a download from web2 that has come in by it: another node takes its connections over.
"""

import shlex
from collections.abc import Sequence

from cgw_hooks.core.node_config import STEER
from tests.lab import migrating_guest as guest
from tests.lab.client import Client
from tests.lab.cluster import Cluster, migrate_command
from tests.lab.cluster_registry import ClusterRegistry, open_registered_cluster
from tests.lab.cluster_replication import Replication
from tests.lab.domain import domain_xml
from tests.lab.download import Download
from tests.lab.lab import chosen_suite
from tests.lab.narration import DETAIL, DemoError, run, say, step
from tests.lab.network import GATEWAY_ADDRESS, guest_address
from tests.lab.node import Node
from tests.lab.progress import progress
from tests.lab.traffic import Ports, Stream, traffic, wait_for_answers

NAME = "guests.example"
SECOND, SECOND_OCTET = "web2", 203
SECOND_PORTS = Ports(session=2307, connection=8081, datagram=124)
MORE_PORT, MORE_TO = 2222, 22
_MILLISECONDS = 1000
#: etcd has a deadline, and a busy machine keeps it seldom.
_TRIES = 30
_MIB = 1 << 20
_DOWNLOAD = 12 * _MIB


def show() -> None:
    """Make a cluster, show what its clients see, take it down.

    Raises DemoError, EtcdError, HostError, TimeoutError.
    """
    with open_registered_cluster(return_path=STEER, replicate=True) as (cluster, registry):
        replication = Replication(cluster.nodes)
        try:
            _introduce(cluster, registry)
            _show_entries(cluster)
            _show_migration(cluster, registry)
            _show_power_loss(cluster, registry, replication)
        finally:
            replication.end()


def _introduce(cluster: Cluster, registry: ClusterRegistry) -> None:
    first, _, third = cluster.nodes
    version = registry.etcd.etcdctl("version", members=()).stdout.split()[2]
    say(f"lab: Debian {chosen_suite()}, 3 nodes in a full mesh, etcd {version} on them, a client")
    for node in cluster.nodes:
        addresses = f"{node.addresses.uplink:16}{node.addresses.guest_network:12}"
        say(f"{DETAIL}{node.name}  {addresses}gateway {GATEWAY_ADDRESS}, by cgw node up")
    say('return-path = "steer": guests see their clients. replicate = true: conntrackd runs')
    say(f"guest {guest.NAME} runs on {first.name}, and publishes nothing yet")
    say(f"guest {SECOND} runs on {third.name}; its own definition publishes ports")
    say("")
    cluster.serve_name(NAME)
    publish = guest.publish(SECOND_PORTS)
    first.define(domain_xml(guest.NAME, octet=guest.OCTET))
    third.define(
        domain_xml(
            SECOND, octet=SECOND_OCTET, publish=publish, publish_address=guest_address(SECOND_OCTET)
        )
    )
    first.start(guest.NAME)
    third.start(SECOND)
    ports = guest.PORTS
    wanted = [f"{ports.connection}:80", f"{ports.session}:7", f"{ports.datagram}/udp"]
    run(first, "cgw", "publish", guest.NAME, *wanted, on=True)
    with progress(f"waiting for {guest.NAME}"):
        for entry in guest.entries(cluster):
            Client(cluster.client).until_answered("tcp", entry, ports.connection)
    run(third, "cgw", "status", "--cluster", on=True, tries=_TRIES)


def _show_entries(cluster: Cluster) -> None:
    """The name leads to every node in turn, and each of them to the guest."""
    seen = set()
    for _ in cluster.nodes:
        address = cluster.resolve(NAME)
        with step(f"client asks {NAME}:{guest.PORTS.connection}, which is {address} this time"):
            _asks(cluster, address)
        seen.add(address)
    if len(seen) != len(cluster.nodes):
        raise DemoError(f"the name led to {sorted(seen)} only")


def _asks(cluster: Cluster, address: str, port: int = guest.PORTS.connection) -> None:
    reply = Client(cluster.client).until_answered("tcp", address, port)
    if (reply.guest, reply.peer) != (guest.NAME, guest.entries(cluster)[address]):
        raise DemoError(f"{address}:{port} gave {reply}")
    say(f"{DETAIL}{reply.guest} answers; it saw the client as {reply.peer}")


def _show_migration(cluster: Cluster, registry: ClusterRegistry) -> None:
    first, second, third = cluster.nodes
    say("- client begins a TCP session, UDP exchanges and new connections, through every node")
    with traffic(cluster.client, guest.entries(cluster), guest.PORTS, guest.NAME) as streams:
        _migrate(first, second)
        leader = registry.etcd.leader()
        with step(f"the leader of etcd, {leader.name}, is killed"):
            leader.kill()
        run(second, "cgw", "publish", guest.NAME, f"{MORE_PORT}:{MORE_TO}", on=True)
        with step(f"client asks {third.addresses.uplink}:{MORE_PORT}"):
            _asks(cluster, third.addresses.uplink, MORE_PORT)
        with step(f"{leader.name} is started again"):
            registry.etcd.start()
        wait_for_answers(streams)
    _tell(streams)


def _migrate(source: Node, destination: Node) -> None:
    command = migrate_command(guest.NAME, destination, "--live")
    with step(f"{shlex.join(command)}   # on {source.name}"), progress("migrating"):
        source.run(command)


def _show_power_loss(cluster: Cluster, registry: ClusterRegistry, replication: Replication) -> None:
    first, second, third = cluster.nodes
    entries, entry = guest.entries(cluster), second.addresses.uplink
    left = {node.addresses.uplink: entries[node.addresses.uplink] for node in (first, third)}
    say(f"- client begins the same with {SECOND}, through {first.name} and {third.name}")
    with traffic(cluster.client, left, SECOND_PORTS, SECOND) as streams:
        with step(f"client begins a download of {_DOWNLOAD // _MIB} MiB from {SECOND}, by {entry}"):
            download = Download(cluster.client, entry, SECOND_PORTS.session, _DOWNLOAD)
        try:
            download.wait_for(_DOWNLOAD // 4)
            replication.wait_for_flow(first, download.client_port)
            _lose_power(second, registry, download)
            run(first, "cgw", "node", "takeover", second.name, on=True)
            with step(f"the download by {entry}, which {first.name} now has, goes on"):
                _finish(download)
        finally:
            download.close()
        run(first, "virsh", "start", guest.NAME, on=True, shows=False)
        for address in entries:
            with step(f"client asks {address}:{guest.PORTS.connection}, until {guest.NAME} is up"):
                _asks(cluster, address)
        wait_for_answers(streams)
    say(f"- {SECOND}, meanwhile:")
    _tell(streams)


def _lose_power(node: Node, registry: ClusterRegistry, download: Download) -> None:
    with step(f"{node.name} loses its power, and {guest.NAME} all its connections"):
        registry.power_off(node)
        say(f"{DETAIL}the download stands at {download.received / _MIB:.1f} MiB")
        say(f"{DETAIL}until somebody starts {guest.NAME} elsewhere, its ports lead to nobody")


def _finish(download: Download) -> None:
    """Wait for the end of a download. Raises DemoError if it is not whole, or has ended before."""
    stood_at = download.received
    with progress("downloading"):
        is_whole = download.finish()
    if not is_whole or stood_at >= download.size:
        raise DemoError(f"the download stood at {stood_at} bytes; whole: {is_whole}")
    say(f"{DETAIL}{download.received / _MIB:.1f} MiB have come, and are what {SECOND} has sent")


def _tell(streams: Sequence[Stream]) -> None:
    """Sum up what the clients have seen. Raises DemoError if anything has failed."""
    by_kind: dict[str, list[Stream]] = {}
    for stream in streams:
        if stream.failures:
            raise DemoError(f"{stream.kind} through {stream.entry}: {stream.failures[0]}")
        by_kind.setdefault(stream.kind, []).append(stream)
    for kind, found in by_kind.items():
        answers = sum(len(stream.answers) for stream in found)
        gap = max(stream.longest_gap for stream in found) * _MILLISECONDS
        say(f"{DETAIL}{kind:20}{answers:5} answers, 0 failures, longest pause {gap:4.0f} ms")

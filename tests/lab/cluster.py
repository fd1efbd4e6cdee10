"""The cluster: nodes in a ring, which `cgw node up` makes gateways, and a client with programs.

Three nodes in a ring are a full mesh, so the cluster runs no spanning tree unless a test wants
one.

The guests publish on every node: on the node that runs a guest, its own definition declares the
ports; on the other nodes, the node's config does, or the registry (tests/lab/cluster_registry.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cgw_hooks.core.node_config import FULL_NAT
from tests.lab import network
from tests.lab.cgroup import cgroups
from tests.lab.gateway_config import gateway_config, remote_node_table
from tests.lab.guest_image import guest_image
from tests.lab.host import Host, HostError
from tests.lab.lab import Lab, open_lab
from tests.lab.node import Node

NODE_COUNT = 3
CONFIG_FILE = "/etc/cgw/cgw.toml"


@dataclass(frozen=True)
class Cluster(Lab):
    """A lab whose nodes are gateways, and whose client is a Debian host as well."""

    client_host: Host
    return_path: str

    def seen_as(self, node: Node) -> str:
        """The source that a guest sees of the client if it comes in by this node."""
        if self.return_path == FULL_NAT:
            return node.addresses.guest_network
        return network.CLIENT_ADDRESS

    def publish_everywhere(self, guest: str, xml: str) -> None:
        """Tell all nodes what a guest publishes while another node runs the guest.

        `xml` is its definition, or only the `<publish>` element. A guest that changes its name
        during a migration is known only by its uuid.
        """
        for node in self.nodes:
            node.write(f"/etc/cgw/guests.d/{guest}.xml", xml)
            node.run(["cgw", "node", "up"])

    def serve_name(self, name: str) -> None:
        """Let the client's dnsmasq answer with all nodes' addresses, taking turns."""
        lines = [f"{node.addresses.uplink} {name}\n" for node in self.nodes]
        self.client_host.write("/etc/cluster-hosts", "".join(lines))
        self.client_host.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
        options = ["--no-resolv", "--no-hosts", "--addn-hosts=/etc/cluster-hosts", "--user=root"]
        self.client_host.run(["dnsmasq", *options])

    def resolve(self, name: str) -> str:
        """The address that a program of the client would use now."""
        return self.client_host.run(["getent", "ahostsv4", name]).stdout.split()[0]

    def home_of(self, guest: str) -> Node:
        """The node where a guest runs. Raises HostError, with its states, when there is none."""
        states = []
        for node in self.nodes:
            said = node.virsh("domstate", guest, "--reason", check=False)
            states.append(f"{node.name}: {(said.stdout or said.stderr).strip()}")
            if said.stdout.startswith(("running", "paused")):
                return node
        raise HostError(f"{guest} runs on no node: {'; '.join(states)}")


def migrate_command(guest: str, destination: Node, *options: str) -> list[str]:
    """The command that migrates a guest, for the node that runs it."""
    uri = f"qemu+tcp://{destination.name}/system"
    return ["virsh", "--quiet", "migrate", "--p2p", *options, guest, uri]


def migrate(guest: str, source: Node, destination: Node, *options: str) -> None:
    """Migrate a running guest with "--live"."""
    source.run(migrate_command(guest, destination, "--live", *options))


@contextmanager
def open_cluster(
    suite: str | None = None,
    *,
    node_count: int = NODE_COUNT,
    full_mesh: bool = True,
    return_path: str = FULL_NAT,
    replicate: bool = False,
) -> Iterator[Cluster]:
    """A cluster of this suite (default: that of $SUITE), always removed at the end of the block.

    Without `full_mesh`, its last node runs the spanning tree. With `replicate` the nodes' config
    asks for conntrackd; the caller starts it.
    """
    with (
        open_lab(
            suite,
            node_count=node_count,
            wire_node=network.wire_bridges,
            spanning_tree=not full_mesh,
        ) as lab,
        cgroups(f"{lab.number}-client") as cgroup,
        Host(
            "client",
            network=lab.client,
            root=lab.root,
            guest_folder=guest_image().folder,
            cgroup=cgroup,
        ) as client_host,
    ):
        for node in lab.nodes:
            others = [other for other in lab.nodes if other is not node]
            make_gateway(
                node, others, full_mesh=full_mesh, return_path=return_path, replicate=replicate
            )
        if full_mesh:
            network.close_ring([node.network for node in lab.nodes])
            lab.nodes[-1].run(["cgw", "node", "up"])
        yield Cluster(lab.number, lab.client, lab.nodes, lab.root, client_host, return_path)


def make_gateway(
    node: Node,
    others: Sequence[Node],
    *,
    full_mesh: bool,
    return_path: str = FULL_NAT,
    replicate: bool = False,
) -> None:
    """Do what an admin does once on each node."""
    is_default = return_path == FULL_NAT
    config = f'[node]\nname = "{node.name}"\n' + gateway_config(
        node.addresses, full_mesh=full_mesh, return_path="" if is_default else return_path
    )
    if replicate or not is_default:
        config += "".join(remote_node_table(other.addresses) for other in others)
    config += "[failover]\nreplicate = true\n" if replicate else ""
    node.write(CONFIG_FILE, config)
    node.install()
    node.reload_libvirtd()
    node.run(["cgw", "node", "up"])

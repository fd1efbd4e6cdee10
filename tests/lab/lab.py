"""The whole lab, put together: `with open_lab("bookworm") as lab: ...`."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import network
from tests.lab.cgroup import cgroups, sweep_cgroups
from tests.lab.debian_root import debian_root
from tests.lab.guest_image import guest_image
from tests.lab.namespace import Namespace, namespace, sweep_namespaces
from tests.lab.node import Node

DEFAULT_SUITE = "bookworm"
Wiring = Callable[[Namespace, Namespace, network.NodeAddresses], None]

_numbers = itertools.count(1)
"""Of the labs of this process: several may be open at once."""


@dataclass(frozen=True)
class Lab:
    """A client's network namespace, and nodes with libvirtd running."""

    number: int
    """Tells the labs of one process apart."""
    client: Namespace
    nodes: tuple[Node, ...]
    root: Path
    """The Debian root that the nodes lie over."""

    @property
    def node(self) -> Node:
        """The first node."""
        return self.nodes[0]


def chosen_suite() -> str:
    """The Debian suite that the environment variable SUITE asks for."""
    return os.environ.get("SUITE") or DEFAULT_SUITE


@contextmanager
def open_lab(
    suite: str | None = None,
    *,
    node_count: int = 1,
    firewall_backend: str | None = None,
    wire_node: Wiring = network.wire_node,
    spanning_tree: bool = True,
) -> Iterator[Lab]:
    """A lab of this suite (default: that of $SUITE), always removed at the end of the block.

    `firewall_backend` is libvirt's, "iptables" or "nftables", where it has the choice; for
    `spanning_tree` see `network.wire_ring`.
    """
    root = debian_root(suite or chosen_suite())
    guest_folder = guest_image().folder
    sweep()
    number = next(_numbers)
    own = "" if number == 1 else f"{number}-"
    with ExitStack() as stack:
        client = stack.enter_context(namespace(f"{own}client"))
        network.wire_client(client)
        nodes = []
        for index in range(1, node_count + 1):
            node_network = stack.enter_context(namespace(f"{own}node{index}"))
            wire_node(node_network, client, network.NodeAddresses(index))
            node = Node(
                index,
                network=node_network,
                root=root,
                guest_folder=guest_folder,
                cgroup=stack.enter_context(cgroups(f"{own}node{index}")),
                firewall_backend=firewall_backend,
            )
            nodes.append(stack.enter_context(node))
        network.wire_ring([node.network for node in nodes], spanning_tree=spanning_tree)
        for node in nodes:
            node.start_libvirtd()
        yield Lab(number, client, tuple(nodes), root)


def sweep() -> None:
    """Remove what killed runs (SIGKILL) have left; this does not touch living runs."""
    sweep_namespaces()
    sweep_cgroups()

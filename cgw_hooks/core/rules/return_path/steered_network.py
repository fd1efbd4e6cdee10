"""What the rules of one steered network are made of: its other nodes, its chains, its matches."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.rules.commands import IP, listed
from cgw_hooks.core.rules.return_path import marks
from cgw_hooks.core.rules.return_path.lift import outside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig
    from cgw_hooks.core.published_port import Address

#: A copy that asks has this TTL, by which a node knows it. `dup` takes one off each time
#: (net/ipv4/netfilter/nf_dup_ipv4.c), so an acknowledgement has two less.
ASKED_HOPS = 255


class OtherNode(NamedTuple):
    """Another node of a network."""

    address: Address
    mark: int
    #: Its MAC addresses, as nft writes a set.
    macs: str


class SteeredNetwork:
    """One steered network of a config."""

    def __init__(self, config: NodeConfig, network: GuestNetwork, suffix: str) -> None:
        """``suffix`` is what the names of its chains end with."""
        self.network = network
        self.bridge = network.bridge
        self.family = network.subnet.version
        self.mask = f"{config.mark_mask:#010x}"
        self.unmarked = f"{marks.others(config.mark_mask):#010x}"
        self.nodes = [
            OtherNode(address, marks.mark(address, config.mark_mask), listed(node.bridge_macs))
            for node in config.remote_nodes
            if (address := node.address_in(network.subnet))
        ]
        self.macs = listed(mac for node in config.remote_nodes for mac in node.bridge_macs)
        self._suffix = suffix
        ip = IP[self.family]
        self.hops = "ip ttl" if self.family == 4 else "ip6 hoplimit"  # noqa: PLR2004
        self.is_question = f"{self.hops} {ASKED_HOPS - 1}"
        self.is_acknowledgement = f"{self.hops} {ASKED_HOPS - 2}"
        self.is_lifted = marks.is_lifted(config.mark_mask)
        outer = outside(network.subnet)
        self.client_to_guest = f"{ip} daddr {network.subnet} {ip} saddr {outer}"
        self.guest_to_client = (
            f"{ip} saddr {network.subnet} {ip} daddr {outer} fib daddr type unicast"
        )

    def chain(self, stem: str, mark: int | None = None) -> str:
        """Return the name of a chain of this network, or of one of its nodes."""
        return f"{stem}{self._suffix}" + ("" if mark is None else f"_{mark:x}")

"""What the rules of ct-sync know of one guest network, and how they name their chains and sets."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.rules.commands import ADDRESS_TYPE, IP, listed
from cgw_hooks.core.rules.return_path import marks
from cgw_hooks.core.rules.return_path.lift import outside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig
    from cgw_hooks.core.published_port import Address

#: TCP, UDP and SCTP: what conntrackd replicates.
TRACKED = "{ 6, 17, 132 }"
DATAGRAMS = "{ 17, 132 }"
TCP = 6
SYN = "tcp flags & (syn | ack) == syn"
#: The entry node must see these, since they change the state of a connection.
CONTROL = "tcp flags & (fin | syn | rst) != 0x0"
ENDING = "tcp flags & (fin | rst) != 0x0"


class Peer(NamedTuple):
    """Another node, on the link of one guest network."""

    address: Address
    macs: tuple[str, ...]
    mark: int

    @property
    def only_mac(self) -> str | None:
        """The MAC address of its guest bridge; None if it has several bridges."""
        return self.macs[0] if len(self.macs) == 1 else None


class SyncedNetwork:
    """One guest network: its nodes, and the texts that all of its rules share."""

    def __init__(self, config: NodeConfig, network: GuestNetwork, suffix: str) -> None:
        """``suffix`` tells the chains and sets of several networks apart."""
        self.network = network
        self.config = config
        self._suffix = suffix
        family = network.subnet.version
        self.ip = ip = IP[family]
        self.outside = outside(network.subnet)
        self.flow_type = " . ".join([ADDRESS_TYPE[family], "inet_service"] * 2)
        #: The key of a flow: guest, its port, client, its port; of a packet from the guest, and
        #: of a packet to the guest.
        self.answer = f"{ip} saddr . th sport . {ip} daddr . th dport"
        self.request = f"{ip} daddr . th dport . {ip} saddr . th sport"
        self.to_client = f"{ip} saddr {network.subnet} {ip} daddr {self.outside}"
        self.to_guest = f"{ip} daddr {network.subnet} {ip} saddr {self.outside}"
        self.own_mark = marks.mark(network.node_address, config.mark_mask)
        self.peers = [
            Peer(address, node.bridge_macs, marks.mark(address, config.mark_mask))
            for node in config.remote_nodes
            if (address := node.address_in(network.subnet))
        ]
        self.macs = listed(mac for peer in self.peers for mac in peer.macs)
        self._mask = f"{config.mark_mask:#010x}"
        self._others = f"{marks.others(config.mark_mask):#010x}"

    def name(self, stem: str, peer: Peer | None = None) -> str:
        """Return the name of a chain or set, of the network or of one of its nodes."""
        return f"{stem}{self._suffix}" + ("" if peer is None else f"_{peer.mark:x}")

    def others_than(self, peer: Peer) -> list[Peer]:
        """Return the other nodes than this one and a peer."""
        return [other for other in self.peers if other != peer]

    def has_mark(self, where: str, mark: int) -> str:
        """Return a match for a mark of this network; ``where`` is "meta" or "ct"."""
        return f"{where} mark & {self._mask} == {mark:#010x}"

    def set_mark(self, where: str, mark: int) -> str:
        """Return the statement that sets a mark, and keeps the bits of other programs."""
        return f"{where} mark set {where} mark & {self._others} | {mark:#010x}"

    def has_no_mark_of(self, where: str, *these: int) -> str:
        """Return a match for any mark but these."""
        values = listed(f"{mark:#010x}" for mark in these)
        return f"{where} mark & {self._mask} != {values}"

"""Steering: a guest sees the client's own address, and its node knows where the client came in.

*Entry node*: the node that the client has connected to, which has translated the flow.

- Client to guest: the guest's node *lifts* the frames that the entry node sends to a guest of its
  own. It rewrites their destination MAC address to its own one, in the bridge, so that they pass
  through its IP layer. Connection tracking then sees both directions, and the flow's conntrack mark
  remembers the entry node by its MAC address.
- Guest to client: an answer with such a mark is routed to the entry node (``ip rule fwmark``, see
  `gateway_settings`), which translates it back.
- A guest that has moved here in the middle of a flow may speak first. The flow is not tracked here
  then, so this node *asks*: it sends copies of the packet to all other nodes and drops it. The
  entry node knows the flow and lets the copy out; the others drop theirs. For UDP and SCTP, the
  entry node also returns a copy as its acknowledgement: perhaps no packet of the client will ever
  tell where it came in. Nobody acknowledges a new flow of the guest's own; after half a second it
  leaves by this node.

No rule depends on a guest or a port. The sets ``here*`` and ``served*`` are filled with the guests
that run on this node. Nothing of this needs a daemon.
"""

from __future__ import annotations

from ipaddress import collapse_addresses, ip_network

from cgw_hooks.core.rules.commands import ADDRESS_TYPE, IP, Table, listed
from cgw_hooks.core.rules.names import FAMILY_TABLES
from cgw_hooks.core.rules.return_path import reused_ports
from cgw_hooks.core.rules.return_path.steered_network import ASKED_HOPS, SteeredNetwork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig
    from cgw_hooks.core.published_port import Address

_RAW_PRIORITY = -300  # before connection tracking (-200)
_MANGLE_PRIORITY = -150  # after connection tracking, before routing and before our NAT (-105)
_TRANSLATED_PRIORITY = 300  # after all NAT

_TCP, _DATAGRAM_PROTOCOLS = 6, "{ 17, 132 }"
_SYN = "tcp flags & (syn | ack) == syn"
_OPENING = "tcp flags & (fin | syn | rst | ack) == syn"
#: Packets of one guest that are copied per second. TCP sends again what was not copied, and a
#: stream of datagrams is copied for some milliseconds only.
_LONGEST_BURST = 1000
#: How long a node waits for an acknowledgement.
_ASKING = "500ms"
#: How long a node remembers that it has asked, and the answer. Until the next packet of the flow
#: nothing else remembers it.
_ASKED = "60s"
_SIZE = 65536
#: Chains of one network, and of each of its other nodes; `reused_ports` has others.
_CHAINS = ("request", "answer", "unknown", "ask", "copy", "handed", "stray", "learn")
_NODE_CHAINS = ("entered", "return_to", "learned")


def full_nat_clients(network: GuestNetwork, config: NodeConfig) -> str:
    """Return the matches of clients that stay with FULL-NAT: other nodes, and all guests.

    They have no address that only the entry node can reach.
    """
    family = network.subnet.version
    subnets = [n.subnet for n in config.guest_networks]
    hosts = [ip_network(a) for node in config.remote_nodes for a in node.uplink_addresses]
    found: list[Any] = [n for n in (*subnets, *hosts) if n.version == family]
    return f"{IP[family]} saddr {listed(collapse_addresses(found))}"


def ip_table(config: NodeConfig, family: int) -> Table:
    """Return the table of one IP family. The config must have steered networks of this family."""
    table = Table(FAMILY_TABLES[family])
    for text in _sets(family):
        table.add_set(text)
    table.add_chain("raw", f"type filter hook prerouting priority {_RAW_PRIORITY}")
    table.add_chain("prerouting", f"type filter hook prerouting priority {_MANGLE_PRIORITY}")
    table.add_chain("postrouting", f"type filter hook postrouting priority {_TRANSLATED_PRIORITY}")
    table.add_chain(reused_ports.ENDING)
    table.add_rules(reused_ports.ending_rules())
    for number, network in enumerate(config.guest_networks):
        if network in config.steered_networks and network.subnet.version == family:
            _Rules(config, network, str(number)).add_to(table)
    return table


def _sets(family: int) -> Iterator[str]:
    address = ADDRESS_TYPE[family]
    served = f"{{ type {address} . inet_proto . inet_service;"
    yield f"set served {served} }}"
    yield f"set served_ranges {served} flags interval; }}"
    flow = f"{address} . inet_service . {address} . inet_service"
    seen = f"flags dynamic,timeout; size {_SIZE};"
    for name, time in (("asking", _ASKING), ("asked", _ASKED)):
        yield f"set {name} {{ type {flow}; {seen} timeout {time}; }}"
    yield f"set askers {{ type {address}; {seen} timeout 10s; }}"


class _Rules:
    """The rules of one steered network."""

    def __init__(self, config: NodeConfig, network: GuestNetwork, suffix: str) -> None:
        self._steered = SteeredNetwork(config, network, suffix)
        self._bridge_mac = network.bridge_mac
        self._mask, self._unmarked = self._steered.mask, self._steered.unmarked
        family = network.subnet.version
        self._flow_type = f"{ADDRESS_TYPE[family]} . inet_service . " * 2
        ip = IP[family]
        self._flow = f"{ip} saddr . th sport . {ip} daddr . th dport"
        self._guest = f"{ip} saddr"
        self._served_key = f"{ip} saddr . meta l4proto . th sport"
        bridge = f'iifname "{network.bridge}"'
        self._to_us = f"{bridge} ether daddr {network.bridge_mac}"
        self._in_transit = f"{bridge} ether daddr != {network.bridge_mac}"
        self._from_other_nodes = (
            f"{self._to_us} ether saddr {self._steered.macs} {self._steered.client_to_guest}"
        )

    def add_to(self, table: Table) -> None:
        """Add the chains and rules of the network."""
        for node in self._steered.nodes:
            table.add_set(self._known_set(node.mark))
            for chain in (*_NODE_CHAINS, *reused_ports.NODE_CHAINS):
                table.add_chain(self._chain(chain, node.mark))
        dynamic = f"flags dynamic,timeout; size {_SIZE}; timeout {_ASKED};"
        for text in reused_ports.sets(self._steered, dynamic):
            table.add_set(text)
        for chain in (*_CHAINS, *reused_ports.CHAINS):
            table.add_chain(self._chain(chain))
        table.add_rules(self._base_rules())
        if self._steered.nodes:
            table.add_rules(reused_ports.rules(self._steered, self._from_other_nodes))
            table.add_rules(self._request_rules())
            table.add_rules(self._answer_rules())
            table.add_rules(self._ask_rules())
            table.add_rules(self._handed_rules())

    def _chain(self, stem: str, mark: int | None = None) -> str:
        return self._steered.chain(stem, mark)

    def _known_set(self, mark: int) -> str:
        flow = self._flow_type.removesuffix(" . ")
        return (
            f"set {self._chain('known', mark)} {{ type {flow};"
            f" flags dynamic,timeout; size {_SIZE}; timeout {_ASKED}; }}"
        )

    def _base_rules(self) -> Iterator[str]:
        # With br_netfilter, frames that are only bridged through this node come by here as well.
        # If they were tracked, the states would be wrong when their guest moves to this node.
        yield f"raw {self._in_transit} {self._steered.client_to_guest} notrack"
        yield f"raw {self._in_transit} {self._steered.guest_to_client} notrack"
        to_answer = f"jump {self._chain('answer')}"
        yield f"prerouting {self._to_us} {self._steered.guest_to_client} {to_answer}"
        if self._steered.nodes:
            yield f"prerouting {self._from_other_nodes} jump {self._chain('request')}"

    def _request_rules(self) -> Iterator[str]:
        """From a client, by another node: remember this node."""
        request = self._chain("request")
        yield f"{request} meta mark set meta mark | {self._mask}"
        yield f"{request} ct state untracked goto {self._chain('untracked')}"
        # A client that uses one port through two nodes at once: its first connection lives. A flow
        # without a mark is none: br_netfilter has tracked it while this node had FULL-NAT, and its
        # client still tries to connect.
        first_lives = f"ct state established ct mark & {self._mask} != 0 return"
        yield f"{request} {_SYN} {first_lives}"
        for node in self._steered.nodes:
            entered = self._chain("entered", node.mark)
            yield f"{request} ether saddr {node.macs} goto {entered}"
            yield f"{entered} ct mark & {self._mask} == {node.mark:#010x} return"
            yield f"{entered} ct mark set ct mark & {self._unmarked} | {node.mark:#010x}"

    def _answer_rules(self) -> Iterator[str]:
        """From a guest to a client: route it to the node where the client came in."""
        answer, unknown = self._chain("answer"), self._chain("unknown")
        yield f"{answer} ether saddr {self._steered.macs} goto {self._chain('handed')}"
        # The client came in here.
        yield f"{answer} ct status dnat meta l4proto {_TCP} goto {self._chain('translated')}"
        yield f"{answer} ct status dnat return"
        for node in self._steered.nodes:
            back = self._chain("return_to", node.mark)
            yield f"{answer} ct mark & {self._mask} == {node.mark:#010x} goto {back}"
            yield f"{back} meta mark set meta mark & {self._unmarked} | {node.mark:#010x}"
        yield f"{answer} ct state established,related return"
        yield f"{answer} {_OPENING} return"  # a new connection of the guest's own
        for served in ("served", "served_ranges"):
            yield f"{answer} {self._served_key} @{served} goto {unknown}"

    def _ask_rules(self) -> Iterator[str]:
        """From a guest, of a flow that is not tracked here."""
        unknown, ask, flow = self._chain("unknown"), self._chain("ask"), self._flow
        yield from (f"{unknown} {rule}" for rule in reused_ports.hand_over(self._steered))
        yield f"{unknown} meta l4proto {_TCP} goto {ask}"
        for node in self._steered.nodes:
            learned = self._chain("learned", node.mark)
            yield f"{unknown} {flow} @{self._chain('known', node.mark)} goto {learned}"
            yield f"{learned} ct mark set ct mark & {self._unmarked} | {node.mark:#010x}"
            yield f"{learned} meta mark set meta mark & {self._unmarked} | {node.mark:#010x}"
        yield f"{unknown} {flow} @asking goto {ask}"
        yield f"{unknown} {flow} @asked update @asked {{ {flow} }} return"
        yield f"{unknown} add @asking {{ {flow} }} add @asked {{ {flow} }} goto {ask}"
        copy = self._chain("copy")
        yield f"{ask} jump {copy}"
        yield f"{ask} drop"
        limit = f"limit rate over {_LONGEST_BURST}/second burst {_LONGEST_BURST} packets"
        yield f"{copy} update @askers {{ {self._guest} {limit} }} return"
        yield f"{copy} {self._steered.hops} set {ASKED_HOPS}"
        for node in self._steered.nodes:
            yield f"{copy} {self._copy_to(node.address)}"

    def _handed_rules(self) -> Iterator[str]:
        """From another node that has a guest: an answer, a question, or an acknowledgement."""
        handed, stray, learn = (self._chain(stem) for stem in ("handed", "stray", "learn"))
        flow, is_datagram = self._flow, f"meta l4proto {_DATAGRAM_PROTOCOLS}"
        # Perhaps the same client has come in here as well, so a flow of its port may be tracked.
        yield f"{handed} {is_datagram} {self._steered.is_acknowledgement} goto {stray}"
        yield f"{handed} ct state new,invalid goto {stray}"
        # Only a node that has the guest can have asked; else this is a question.
        for served in ("served", "served_ranges"):
            yield f"{stray} {self._served_key} @{served} {flow} @asking jump {learn}"
        yield f"{stray} drop"
        # The flow was steered here earlier: this is not the node where the client came in.
        yield f"{handed} ct status & dnat != dnat drop"
        yield f"{handed} meta l4proto {_TCP} goto {self._chain('translated')}"
        for node in self._steered.nodes:
            yield (
                f"{handed} {is_datagram} {self._steered.is_question} "
                f"ether saddr {node.macs} {self._copy_to(node.address)}"
            )
            yield (
                f"{learn} ether saddr {node.macs} "
                f"add @{self._chain('known', node.mark)} {{ {flow} }}"
            )

    def _copy_to(self, address: Address) -> str:
        return f'dup to {address} device "{self._steered.bridge}"'

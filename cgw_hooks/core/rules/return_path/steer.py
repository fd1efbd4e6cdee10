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

from cgw_hooks.core.rules.commands import ADDRESS_TYPE, IP, Table, devices, listed
from cgw_hooks.core.rules.names import FAMILY_TABLES
from cgw_hooks.core.rules.return_path import marks
from cgw_hooks.core.rules.return_path.lift import outside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig
    from cgw_hooks.core.published_port import Address

_RAW_PRIORITY = -300  # before connection tracking (-200)
_MANGLE_PRIORITY = -150  # after connection tracking, before routing and before our NAT (-105)
_LEAK_PRIORITY = 300  # after all NAT

_TCP, _DATAGRAM_PROTOCOLS = 6, "{ 17, 132 }"
_SYN = "tcp flags & (syn | ack) == syn"
_OPENING = "tcp flags & (fin | syn | rst | ack) == syn"
#: Packets of one guest that are copied per second. TCP sends again what was not copied, and a
#: stream of datagrams is copied for some milliseconds only.
_LONGEST_BURST = 1000
#: How long a node waits for an acknowledgement.
_ASKING = "500ms"
#: A copy of a datagram that asks has this TTL, by which the entry node knows it. `dup` takes one
#: off each time (net/ipv4/netfilter/nf_dup_ipv4.c), so an acknowledgement has two less.
_ASKED_HOPS = 255
#: How long a node remembers that it has asked, and the answer. Until the next packet of the flow
#: nothing else remembers it.
_ASKED = "60s"
_SIZE = 65536


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
    table.add_chain("postrouting", f"type filter hook postrouting priority {_LEAK_PRIORITY}")
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
        self._config = config
        self._network = network
        self._suffix = suffix
        self._mask = f"{config.mark_mask:#010x}"
        self._others = f"{marks.others(config.mark_mask):#010x}"
        family = network.subnet.version
        self._ip = ip = IP[family]
        self._flow_type = f"{ADDRESS_TYPE[family]} . inet_service . " * 2
        self._flow = f"{ip} saddr . th sport . {ip} daddr . th dport"
        self._hops = "ip ttl" if family == 4 else "ip6 hoplimit"  # noqa: PLR2004
        self._served_key = f"{ip} saddr . meta l4proto . th sport"
        self._nodes = [
            (node, address, marks.mark(address, config.mark_mask))
            for node in config.remote_nodes
            if (address := node.address_in(network.subnet))
        ]
        self._macs = listed(mac for node in config.remote_nodes for mac in node.bridge_macs)
        self._outside = outside(network.subnet)

    def add_to(self, table: Table) -> None:
        """Add the chains and rules of the network."""
        for _, _, mark in self._nodes:
            table.add_set(self._known_set(mark))
            for chain in ("entered", "return_to", "learned"):
                table.add_chain(self._chain(chain, mark))
        for chain in ("request", "answer", "unknown", "ask", "handed", "stray", "learn"):
            table.add_chain(self._chain(chain))
        table.add_rules(self._base_rules())
        if self._nodes:
            table.add_rules(self._request_rules())
            table.add_rules(self._answer_rules())
            table.add_rules(self._ask_rules())
            table.add_rules(self._handed_rules())

    def _chain(self, stem: str, mark: int | None = None) -> str:
        return f"{stem}{self._suffix}" + ("" if mark is None else f"_{mark:x}")

    def _known_set(self, mark: int) -> str:
        flow = self._flow_type.removesuffix(" . ")
        return (
            f"set {self._chain('known', mark)} {{ type {flow};"
            f" flags dynamic,timeout; size {_SIZE}; timeout {_ASKED}; }}"
        )

    def _base_rules(self) -> Iterator[str]:
        network, ip = self._network, self._ip
        bridge, own = f'iifname "{network.bridge}"', network.bridge_mac
        client_to_guest = f"{ip} daddr {network.subnet} {ip} saddr {self._outside}"
        guest_to_client = (
            f"{ip} saddr {network.subnet} {ip} daddr {self._outside} fib daddr type unicast"
        )
        # With br_netfilter, frames that are only bridged through this node come by here as well.
        # If they were tracked, the states would be wrong when their guest moves to this node.
        yield f"raw {bridge} ether daddr != {own} {client_to_guest} notrack"
        yield f"raw {bridge} ether daddr != {own} {guest_to_client} notrack"
        to_answer = f"jump {self._chain('answer')}"
        yield f"prerouting {bridge} ether daddr {own} {guest_to_client} {to_answer}"
        if self._nodes:
            yield (
                f"prerouting {bridge} ether daddr {own} ether saddr {self._macs} {client_to_guest} "
                f"jump {self._chain('request')}"
            )
        # The kernel does not translate a packet that connection tracking calls invalid.
        out = self._config.uplink.devices
        yield (
            f"postrouting {ip} saddr {network.subnet} {ip} daddr {self._outside} "
            + (f"oifname {devices(out)} drop" if out else f'oifname != "{network.bridge}" drop')
        )

    def _request_rules(self) -> Iterator[str]:
        """From a client, by another node: remember this node."""
        # A client that uses one port through two nodes at once: its first connection lives. A flow
        # without a mark is none: br_netfilter has tracked it while this node had FULL-NAT, and its
        # client still tries to connect.
        first_lives = f"ct state established ct mark & {self._mask} != 0 return"
        yield f"{self._chain('request')} {_SYN} {first_lives}"
        for node, _, mark in self._nodes:
            entered = self._chain("entered", mark)
            yield f"{self._chain('request')} ether saddr {listed(node.bridge_macs)} goto {entered}"
            yield f"{entered} ct mark & {self._mask} == {mark:#010x} return"
            yield f"{entered} ct mark set ct mark & {self._others} | {mark:#010x}"

    def _answer_rules(self) -> Iterator[str]:
        """From a guest to a client: route it to the node where the client came in."""
        answer, unknown = self._chain("answer"), self._chain("unknown")
        yield f"{answer} ether saddr {self._macs} goto {self._chain('handed')}"
        yield f"{answer} ct status dnat return"  # the client came in here
        for _, _, mark in self._nodes:
            back = self._chain("return_to", mark)
            yield f"{answer} ct mark & {self._mask} == {mark:#010x} goto {back}"
            yield f"{back} meta mark set meta mark & {self._others} | {mark:#010x}"
        yield f"{answer} ct state established,related return"
        yield f"{answer} {_OPENING} return"  # a new connection of the guest's own
        for served in ("served", "served_ranges"):
            yield f"{answer} {self._served_key} @{served} goto {unknown}"

    def _ask_rules(self) -> Iterator[str]:
        """From a guest, of a flow that is not tracked here."""
        unknown, ask, flow = self._chain("unknown"), self._chain("ask"), self._flow
        yield f"{unknown} meta l4proto {_TCP} goto {ask}"
        for _, _, mark in self._nodes:
            learned = self._chain("learned", mark)
            yield f"{unknown} {flow} @{self._chain('known', mark)} goto {learned}"
            yield f"{learned} ct mark set ct mark & {self._others} | {mark:#010x}"
            yield f"{learned} meta mark set meta mark & {self._others} | {mark:#010x}"
        yield f"{unknown} {flow} @asking goto {ask}"
        yield f"{unknown} {flow} @asked update @asked {{ {flow} }} return"
        yield f"{unknown} add @asking {{ {flow} }} add @asked {{ {flow} }} goto {ask}"
        limit = f"limit rate over {_LONGEST_BURST}/second burst {_LONGEST_BURST} packets"
        yield f"{ask} update @askers {{ {self._ip} saddr {limit} }} drop"
        yield f"{ask} meta l4proto {_DATAGRAM_PROTOCOLS} {self._hops} set {_ASKED_HOPS}"
        for _, address, _ in self._nodes:
            yield f"{ask} {self._copy_to(address)}"
        yield f"{ask} drop"

    def _handed_rules(self) -> Iterator[str]:
        """From another node that has a guest: an answer, a question, or an acknowledgement."""
        handed, stray, learn = (self._chain(stem) for stem in ("handed", "stray", "learn"))
        flow = self._flow
        # Perhaps the same client has come in here as well, so a flow of its port may be tracked.
        acknowledged = f"meta l4proto {_DATAGRAM_PROTOCOLS} {self._hops} {_ASKED_HOPS - 2}"
        yield f"{handed} {acknowledged} goto {stray}"
        yield f"{handed} ct state new,invalid goto {stray}"
        # Only a node that has the guest can have asked; else this is a question.
        for served in ("served", "served_ranges"):
            yield f"{stray} {self._served_key} @{served} {flow} @asking jump {learn}"
        yield f"{stray} drop"
        # The flow was steered here earlier: this is not the node where the client came in.
        yield f"{handed} ct status & dnat != dnat drop"
        yield f"{handed} meta l4proto {_TCP} return"
        for node, address, mark in self._nodes:
            yield (
                f"{handed} meta l4proto {_DATAGRAM_PROTOCOLS} {self._hops} {_ASKED_HOPS - 1} "
                f"ether saddr {listed(node.bridge_macs)} {self._copy_to(address)}"
            )
            yield (
                f"{learn} ether saddr {listed(node.bridge_macs)} "
                f"add @{self._chain('known', mark)} {{ {flow} }}"
            )

    def _copy_to(self, address: Address) -> str:
        return f'dup to {address} device "{self._network.bridge}"'

"""CT-SYNC in the IP layer of a guest's node: which answers it sends out itself.

A packet from the bridge has a mark: that of the node that has sent the client's packets, if the
bridge has seen one lately, or this node's own one, if another node hands the packet over.
"""

from __future__ import annotations

from cgw_hooks.core.rules.commands import ADDRESS_TYPE, devices, listed
from cgw_hooks.core.rules.return_path.synced_network import CONTROL, DATAGRAMS, TCP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.rules.commands import Table
    from cgw_hooks.core.rules.return_path.synced_network import Peer, SyncedNetwork

_RAW_PRIORITY = -300  # before connection tracking (-200)
_MANGLE_PRIORITY = -150  # after connection tracking, before routing and before our NAT (-105)
_LEAK_PRIORITY = 300  # after all NAT
_OPENING = "tcp flags & (fin | syn | rst | ack) == syn"
_ALL_EVENTS, _NO_EVENTS = "0xffff", "0x0"
#: Packets of one guest that are copied to all nodes per second.
_LONGEST_BURST = 1000
_SIZE = 65536
#: So often the entry node gets an answer of a flow of datagrams, or it would forget the flow of a
#: client that is silent: after 30 s, or 120 s (nf_conntrack_udp_timeout and _stream).
_LATELY = "10s"
#: How long a node waits for an acknowledgement, and remembers that it has asked.
_ASKING, _ASKED = "500ms", "60s"
#: A datagram that asks has this TTL, by which the entry node knows it. `dup` takes one off each
#: time (net/ipv4/netfilter/nf_dup_ipv4.c), so an acknowledgement has two less.
_ASKED_HOPS = 255
_HOPS = {4: "ip ttl", 6: "ip6 hoplimit"}
_ICMP_ERRORS = {
    4: "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
    6: "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
}


def add_to(table: Table, family: int, networks: Iterable[SyncedNetwork]) -> None:
    """Add sets, chains and rules of all networks of one IP family."""
    address = ADDRESS_TYPE[family]
    served = f"{{ type {address} . inet_proto . inet_service;"
    table.add_set(f"set served {served} }}")
    table.add_set(f"set served_ranges {served} flags interval; }}")
    table.add_set(
        f"set askers {{ type {address}; flags dynamic,timeout; size {_SIZE}; timeout 10s; }}"
    )
    table.add_chain("raw", f"type filter hook prerouting priority {_RAW_PRIORITY}")
    table.add_chain("prerouting", f"type filter hook prerouting priority {_MANGLE_PRIORITY}")
    table.add_chain("postrouting", f"type filter hook postrouting priority {_LEAK_PRIORITY}")
    # Flows whose source another program translates: those of containers, for example, may have the
    # same addresses on several nodes, so conntrackd must not bring them to another one.
    table.add_rules([f"postrouting ct status snat ct event set {_NO_EVENTS}"])
    for synced in networks:
        _add_network(table, synced)


def add_untracked(table: Table, networks: Iterable[SyncedNetwork]) -> None:
    """Add only the rules for frames that no node between may track."""
    table.add_chain("raw", f"type filter hook prerouting priority {_RAW_PRIORITY}")
    for synced in networks:
        table.add_rules(_raw_rules(synced))


def _add_network(table: Table, synced: SyncedNetwork) -> None:
    for name, time in (("lately", _LATELY), ("asking", _ASKING), ("asked", _ASKED)):
        table.add_set(f"set {synced.name(name)} {{ {_flows(synced, time)} }}")
    for chain in ("mine", "answer", "handed", "unknown", "ask", "learn"):
        table.add_chain(synced.name(chain))
    for peer in synced.peers:
        table.add_set(f"set {synced.name('learned', peer)} {{ {_flows(synced, _ASKED)} }}")
        for chain in ("sent", "direct", "hand"):
            table.add_chain(synced.name(chain, peer))
    table.add_rules(_raw_rules(synced))
    table.add_rules(_entry_rules(synced))
    table.add_rules(_answer_rules(synced))
    table.add_rules(_ask_rules(synced))


def _flows(synced: SyncedNetwork, time: str) -> str:
    return f"type {synced.flow_type}; flags dynamic,timeout; size {_SIZE}; timeout {time};"


def _raw_rules(synced: SyncedNetwork) -> Iterator[str]:
    """Frames that are only bridged through this node, which br_netfilter shows here as well.

    If they were tracked, no copy of their flow could be there.
    """
    network, ip = synced.network, synced.ip
    bridged = f'raw iifname "{network.bridge}" ether daddr != {network.bridge_mac}'
    yield f"{bridged} {synced.to_guest} notrack"
    yield f"{bridged} {synced.to_client} fib daddr type unicast notrack"
    if synced.peers:  # FULL-NAT of nodes and guests as clients: other nodes have copies as well
        nodes = listed(peer.address for peer in synced.peers)
        yield f"{bridged} {ip} saddr {network.subnet} {ip} daddr {nodes} notrack"
        yield f"{bridged} {ip} saddr {nodes} {ip} daddr {network.subnet} notrack"


def _entry_rules(synced: SyncedNetwork) -> Iterator[str]:
    """On the entry node: flows that are its own, and answers that other nodes hand over."""
    network, mine, handed = synced.network, synced.name("mine"), synced.name("handed")
    is_own = f"ct direction reply ct status dnat {synced.has_mark('ct', synced.own_mark)}"
    # Whoever gets the client's packets is the entry node: also one that stands in for another one,
    # which has had a copy until now.
    yield (
        f"prerouting fib daddr type local ct status dnat ct direction original "
        f"ct reply {synced.ip} saddr {network.subnet} "
        f"ct reply {synced.ip} daddr {synced.outside} "  # not FULL-NAT
        f"{synced.has_no_mark_of('ct', synced.own_mark)} goto {mine}"
    )
    yield f"{mine} {synced.set_mark('ct', synced.own_mark)} ct event set {_ALL_EVENTS}"
    yield f"{handed} {synced.set_mark('meta', 0)}"
    hops = f"meta l4proto {DATAGRAMS} {_HOPS[network.subnet.version]}"
    acknowledged = f"{hops} {_ASKED_HOPS - 2} {synced.answer} @{synced.name('asking')}"
    yield f"{handed} {acknowledged} goto {synced.name('learn')}"
    for peer in synced.peers:
        yield (
            f"{handed} {hops} {_ASKED_HOPS - 1} {is_own} ether saddr {listed(peer.macs)} "
            f"{_copy_to(synced, peer)}"
        )
    for mark in (synced.own_mark, 0):  # 0: from before this return path
        yield f"{handed} ct direction reply ct status dnat {synced.has_mark('ct', mark)} return"
    yield f"{handed} drop"
    uplinks, subnet = synced.config.uplink.devices, network.subnet
    out = f"oifname {devices(uplinks)}" if uplinks else f'oifname != "{network.bridge}"'
    # The kernel does not translate a packet that connection tracking calls invalid.
    yield (f"postrouting {synced.ip} saddr {subnet} {synced.ip} daddr {synced.outside} {out} drop")


def _answer_rules(synced: SyncedNetwork) -> Iterator[str]:
    """From a guest to a client."""
    network, answer = synced.network, synced.name("answer")
    yield (
        f'prerouting iifname "{network.bridge}" ether daddr {network.bridge_mac} '
        f"{synced.to_client} fib daddr type unicast goto {answer}"
    )
    is_own = synced.has_mark("ct", synced.own_mark)
    yield f"{answer} {synced.has_mark('meta', synced.own_mark)} goto {synced.name('handed')}"
    yield f"{answer} {is_own} {synced.set_mark('meta', 0)} return"
    # conntrackd here must tell nobody what it has heard of others.
    yield f"{answer} {synced.has_no_mark_of('ct', 0)} ct event set {_NO_EVENTS}"
    for where in ("meta", "ct"):
        for peer in synced.peers:
            yield f"{answer} {synced.has_mark(where, peer.mark)} goto {synced.name('sent', peer)}"
    yield f"{answer} ct state established,related return"
    yield f"{answer} {_OPENING} return"  # a new connection of the guest's own
    yield f"{answer} {_ICMP_ERRORS[network.subnet.version]} goto {synced.name('ask')}"
    for served in ("served", "served_ranges"):
        key = f"{synced.ip} saddr . meta l4proto . th sport"
        yield f"{answer} {key} @{served} goto {synced.name('unknown')}"
    for peer in synced.peers:
        yield from _peer_rules(synced, peer)


def _peer_rules(synced: SyncedNetwork, peer: Peer) -> Iterator[str]:
    """An answer of a flow whose entry node is known."""
    sent, direct, hand = (synced.name(stem, peer) for stem in ("sent", "direct", "hand"))
    lately = synced.name("lately")
    is_copy = f"ct direction reply ct status assured {synced.has_mark('ct', peer.mark)}"
    yield f"{sent} {CONTROL} goto {hand}"
    yield f"{sent} {is_copy} goto {direct}"
    yield f"{sent} goto {hand}"
    is_due = f"meta l4proto {DATAGRAMS} {synced.answer} != @{lately}"
    yield f"{direct} {is_due} add @{lately} {{ {synced.answer} }} goto {hand}"
    yield f"{direct} {synced.set_mark('meta', 0)}"
    # The bridge knows by the mark that the flow is steered (`synced_bridge`).
    yield f"{hand} {synced.set_mark('meta', peer.mark)} {_copy_to(synced, peer)} drop"


def _ask_rules(synced: SyncedNetwork) -> Iterator[str]:
    """From a guest, of a flow that nobody here knows: every other node gets the packet.

    The entry node lets it out. Of datagrams it also returns one, since perhaps no packet of the
    client will ever tell where it came in. If nobody does within half a second, it is a new flow
    of the guest's own.
    """
    unknown, ask = synced.name("unknown"), synced.name("ask")
    flow, asking, asked = synced.answer, synced.name("asking"), synced.name("asked")
    yield f"{unknown} meta l4proto {TCP} goto {ask}"
    for peer in synced.peers:
        learned = synced.name("learned", peer)
        is_learned = f"{flow} @{learned} update @{learned} {{ {flow} }}"
        yield f"{unknown} {is_learned} goto {synced.name('hand', peer)}"
    yield f"{unknown} {flow} @{asking} goto {ask}"
    yield f"{unknown} {flow} @{asked} update @{asked} {{ {flow} }} return"
    yield f"{unknown} add @{asking} {{ {flow} }} add @{asked} {{ {flow} }} goto {ask}"
    limit = f"limit rate over {_LONGEST_BURST}/second burst {_LONGEST_BURST} packets"
    yield f"{ask} update @askers {{ {synced.ip} saddr {limit} }} drop"
    hops = _HOPS[synced.network.subnet.version]
    yield f"{ask} meta l4proto {DATAGRAMS} {hops} set {_ASKED_HOPS}"
    for peer in synced.peers:
        yield f"{ask} {_copy_to(synced, peer)}"
    yield f"{ask} drop"
    learn = synced.name("learn")
    for peer in synced.peers:
        learned = f"add @{synced.name('learned', peer)} {{ {flow} }}"
        yield f"{learn} ether saddr {listed(peer.macs)} {learned}"
    yield f"{learn} drop"


def _copy_to(synced: SyncedNetwork, peer: Peer) -> str:
    return f'dup to {peer.address} device "{synced.network.bridge}"'

"""CT-SYNC in the bridge: which node sends the packets of a flow, and answers that go there.

No rule depends on a guest or a port. For each guest network and each other node there are two sets
of flows:

- ``known*``: the node has sent a packet of this flow to a guest of this node. Flows that are silent
  for half a minute leave it: their copies know the entry node, and so do the nodes if they are
  asked.
- ``young*``: the answers go to this node without a look at the copy. The frame only gets another
  destination MAC address, so nothing on its way changes it or has to route it. A flow is young
  when it begins, and for a second after an answer for which there was no copy.

``closing*`` has the TCP connections that one side has ended: another one may come from the same
client port by another node. A connection that nobody has ended keeps its node.
"""

from __future__ import annotations

from cgw_hooks.core.rules.commands import ADDRESS_TYPE, devices, listed
from cgw_hooks.core.rules.return_path.synced_network import (
    CONTROL,
    DATAGRAMS,
    ENDING,
    SYN,
    TRACKED,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.rules.commands import Table
    from cgw_hooks.core.rules.return_path.synced_network import Peer, SyncedNetwork

_PRIORITY = -300  # before br_netfilter (0), as the ARP filter
#: As many flows as a kernel tracks by default (net.netfilter.nf_conntrack_max).
_SIZE = 262_144
_KNOWN, _YOUNG, _CLOSING = "30s", "1s", "2m"
#: A fragment of a longer packet has the bit "more fragments", or an offset.
_FRAGMENT = {4: "ip frag-off & 0x3fff != 0", 6: "exthdr frag exists"}
_CHAINS = ("request", "answer", "control", "seen", "up", "here", "forget")


def add_to(table: Table, config: NodeConfig, networks: Iterable[SyncedNetwork]) -> None:
    """Add sets, chains and rules of all networks."""
    for family, address in ADDRESS_TYPE.items():
        table.add_set(f"set here{family} {{ type {address}; }}")
    for hook in ("prerouting", "output"):
        table.add_chain(hook, f"type filter hook {hook} priority {_PRIORITY}")
    table.add_chain("arriving")
    internode = dict.fromkeys(d for n in config.guest_networks for d in n.internode_devices)
    table.add_rules([f"prerouting iifname {devices(internode)} goto arriving"])
    for synced in networks:
        if synced.peers:
            _add_network(table, synced)


def _add_network(table: Table, synced: SyncedNetwork) -> None:
    def flows(name: str, time: str) -> str:
        form = f"type {synced.flow_type}; flags dynamic,timeout; size {_SIZE}; timeout {time};"
        return f"set {name} {{ {form} }}"

    table.add_set(flows(synced.name("closing"), _CLOSING))
    for chain in _CHAINS:
        table.add_chain(synced.name(chain))
    for peer in synced.peers:
        table.add_set(flows(synced.name("known", peer), _KNOWN))
        table.add_set(flows(synced.name("young", peer), _YOUNG))
        for chain in ("entered", "opened"):
            table.add_chain(synced.name(chain, peer))
    table.add_rules(_base_rules(synced))
    table.add_rules(_request_rules(synced))
    table.add_rules(_answer_rules(synced))


def _base_rules(synced: SyncedNetwork) -> Iterator[str]:
    network, own = synced.network, synced.network.bridge_mac
    here = f"{synced.ip} daddr @here{network.subnet.version}"
    # From a guest of another node. The guest's node has taken every such frame up; so it is meant
    # for this node as the entry node.
    handed = f"{synced.set_mark('meta', synced.own_mark)} accept"
    yield f"arriving ether daddr {own} {synced.to_client} {handed}"
    yield (
        f"arriving ether saddr {synced.macs} meta l4proto {TRACKED} {synced.to_guest} {here} "
        f"goto {synced.name('request')}"
    )
    # A guest that has just moved here still sends to the MAC address of its former node.
    gateways = listed([own, *(mac for peer in synced.peers for mac in peer.macs)])
    yield f"prerouting ether daddr {gateways} {synced.to_client} goto {synced.name('answer')}"
    yield f"output meta l4proto {TRACKED} {synced.to_guest} goto {synced.name('here')}"
    for peer in synced.peers:
        yield (
            f"output {synced.has_mark('meta', peer.mark)} meta l4proto {TRACKED} "
            f"{synced.to_client} add @{synced.name('young', peer)} {{ {synced.answer} }}"
        )


def _request_rules(synced: SyncedNetwork) -> Iterator[str]:
    """From a client: remember the node that sends the packet, or that this node does."""
    request, flow = synced.name("request"), synced.request
    closing = synced.name("closing")
    yield f"{request} {ENDING} update @{closing} {{ {flow} }}"
    for peer in synced.peers:
        entered, opened = synced.name("entered", peer), synced.name("opened", peer)
        known, young = synced.name("known", peer), synced.name("young", peer)
        others = synced.others_than(peer)
        yield f"{request} ether saddr {listed(peer.macs)} goto {entered}"
        yield f"{entered} {SYN} goto {opened}"
        yield f"{entered} {flow} @{known} update @{known} {{ {flow} }} accept"
        yield from (f"{entered} {text}" for text in _forget(synced, others))
        yield f"{entered} add @{known} {{ {flow} }}"
        yield f"{entered} meta l4proto {DATAGRAMS} update @{young} {{ {flow} }}"
        yield f"{entered} accept"
        for other in others:  # of two connections from one client port, the first lives
            is_live = f"{flow} @{synced.name('known', other)} {flow} != @{closing}"
            yield f"{opened} {is_live} accept"
        yield f"{opened} delete @{closing} {{ {flow} }}"
        yield from (f"{opened} {text}" for text in _forget(synced, others))
        yield f"{opened} update @{known} {{ {flow} }} update @{young} {{ {flow} }} accept"
    here, forget = synced.name("here"), synced.name("forget")
    yield f"{here} {SYN} goto {forget}"
    yield f"{here} meta l4proto {DATAGRAMS} goto {forget}"
    yield f"{forget} delete @{closing} {{ {flow} }}"
    yield from (f"{forget} {text}" for text in _forget(synced, synced.peers))


def _forget(synced: SyncedNetwork, peers: Iterable[Peer]) -> Iterator[str]:
    for peer in peers:
        for stem in ("known", "young"):
            yield f"delete @{synced.name(stem, peer)} {{ {synced.request} }}"


def _answer_rules(synced: SyncedNetwork) -> Iterator[str]:
    """From a guest of this node: to the entry node, or up into this node's IP layer."""
    answer, control, seen, up = (synced.name(s) for s in ("answer", "control", "seen", "up"))
    flow = synced.answer
    # Only the first fragment has ports, so all of them go the same way: up. The IP layer joins
    # them, and the whole packet has the mark of the first one.
    yield f"{answer} {_FRAGMENT[synced.network.subnet.version]} goto {seen}"
    yield f"{answer} meta l4proto != {TRACKED} goto {up}"
    yield f"{answer} {CONTROL} goto {control}"
    for stem, chain in (("young", answer), ("known", control)):
        if chain == control:
            yield f"{control} {ENDING} update @{synced.name('closing')} {{ {flow} }}"
        for peer in synced.peers:
            if peer.only_mac:
                hand = f"ether daddr set {peer.only_mac} accept"
                yield f"{chain} {flow} @{synced.name(stem, peer)} {hand}"
        yield f"{chain} goto {seen}"
    for peer in synced.peers:
        mark = synced.set_mark("meta", peer.mark)
        yield f"{seen} {flow} @{synced.name('known', peer)} {mark} goto {up}"
    yield f"{seen} goto {up}"
    yield f"{up} ether daddr set {synced.network.bridge_mac} meta pkttype set host accept"

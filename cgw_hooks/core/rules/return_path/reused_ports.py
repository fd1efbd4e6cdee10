"""Steering, where a client uses a port again through another node, to the same port of a guest.

The connection before is over, but the node where it came in still tracks it, for two minutes
(``nf_conntrack_tcp_timeout_time_wait``). For that node, both connections have the same answers:

- *A packet of the present connection matches the flow of the one before*, at the node that the
  guest has moved to, or at a node that is asked. The client would answer with a reset, which would
  end the present connection. So a node marks its own flows that are over (a conntrack label): it
  asks the other nodes as well, and no reset of the client passes any more.
- *The present connection comes in by another node, and is lifted* at the node of the flow that is
  over. The kernel gives its flow another port of the client, since each flow needs answers of its
  own (``get_unique_tuple`` in net/netfilter/nf_nat_core.c). After a move, nobody knows that port.
  So the packet gets its port back and goes on as a copy, which is not tracked, and neither are the
  next ones: sets remember where they have come in, and the answers are sent there as copies.
"""

from __future__ import annotations

from cgw_hooks.core.rules.commands import ADDRESS_TYPE, IP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.rules.return_path.steered_network import SteeredNetwork

#: Chains of one network, and of each of its other nodes.
CHAINS = ("translated", "over", "untracked", "given_back")
NODE_CHAINS = ("came_by", "hand_to")
#: Chain of all networks: from a client, the end of a connection that came in here.
ENDING = "ending"
#: Set of all networks: flows that are not tracked.
_TAKEN = "taken"

#: Bits of the conntrack label (0 to 127; `names` has others) of a flow that this node translates:
#: the client, and the guest, have sent a FIN; the connection is over, and has been acknowledged.
_CLIENT_ENDED, _GUEST_ENDED, _OVER = 115, 116, 117

_TCP = "meta l4proto tcp"
_RESETS = "tcp flags & rst == rst"
_ENDS = "tcp flags & fin == fin"


def ending_rules() -> Iterator[str]:
    """Yield the rules for clients of this node that end a connection."""
    ends = "tcp flags & (fin | rst) != 0 ct direction original ct status dnat"
    yield f"prerouting {ends} jump {ENDING}"
    yield f"{ENDING} {_RESETS} ct label {_OVER} drop"
    yield f"{ENDING} {_RESETS} ct label set {_OVER}"
    yield f"{ENDING} {_ENDS} ct label set {_CLIENT_ENDED}"


def sets(network: SteeredNetwork, dynamic: str) -> Iterator[str]:
    """Yield the sets of one network. ``dynamic`` has their flags, size and timeout."""
    address = ADDRESS_TYPE[network.family]
    flow = f"{address} . inet_service . {address} . inet_service"
    for name in (_TAKEN, *(network.chain("reused", node.mark) for node in network.nodes)):
        yield f"set {name} {{ type {flow}; {dynamic} }}"


def rules(network: SteeredNetwork, from_other_nodes: str) -> Iterator[str]:
    """Yield the rules of one network. ``from_other_nodes`` matches what this node lifts."""
    ip = IP[network.family]
    #: The flow as the guest sends it.
    flow = f"{ip} daddr . tcp dport . {ip} saddr . tcp sport"
    translated, over, untracked, given_back = (network.chain(stem) for stem in CHAINS)
    # From a guest to a client that came in here. What comes after both have ended the connection
    # acknowledges the last FIN; only what comes later can be of another connection.
    yield f"{translated} ct label {_OVER} goto {over}"
    yield f"{translated} {_RESETS} ct label set {_OVER}"
    yield f"{translated} {_ENDS} ct label set {_GUEST_ENDED}"
    yield f"{translated} ct label {_CLIENT_ENDED} ct label {_GUEST_ENDED} ct label set {_OVER}"
    yield from (f"{over} {rule}" for rule in hand_over(network))
    yield f"{over} {network.is_question} return"
    yield f"{over} jump {network.chain('copy')}"
    # From a client, by another node.
    yield f"raw {from_other_nodes} {_TCP} {flow} @{_TAKEN} notrack"
    yield f"postrouting {network.is_lifted} {_TCP} ct status snat goto {given_back}"
    yield f"{given_back} tcp sport set ct original proto-src jump {untracked}"
    # The copy is not tracked. No flow may stay that has the other port: it would change the answers
    # to a connection that really comes from that one.
    yield f'{given_back} dup to {ip} daddr device "{network.bridge}" drop'
    yield f"{untracked} update @{_TAKEN} {{ {flow} }}"
    for node in network.nodes:
        came_by, hand_to = (network.chain(stem, node.mark) for stem in NODE_CHAINS)
        yield f"{untracked} ether saddr {node.macs} goto {came_by}"
        for other in network.nodes:
            verb = "update" if other is node else "delete"
            yield f"{came_by} {verb} @{network.chain('reused', other.mark)} {{ {flow} }}"
        yield f'{hand_to} dup to {node.address} device "{network.bridge}" drop'


def hand_over(network: SteeredNetwork) -> Iterator[str]:
    """Yield rules, without their chain, that send a packet of such a flow to its entry node."""
    ip = IP[network.family]
    flow = f"{ip} saddr . tcp sport . {ip} daddr . tcp dport"
    for node in network.nodes:
        reused, hand_to = (network.chain(stem, node.mark) for stem in ("reused", "hand_to"))
        yield f"{_TCP} {flow} @{reused} goto {hand_to}"

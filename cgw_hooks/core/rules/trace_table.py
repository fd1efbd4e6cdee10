"""The tables that arm nft's trace for one published port, as nft text.

Each ``cgw trace`` has tables of its own, with its process id in their names. They have nft's flag
*owner*: nobody else can change them, ``nft flush ruleset`` leaves them, and the kernel deletes them
when the process ends, whatever ended it (since Linux 5.12; nft_rcv_nl_event in
net/netfilter/nf_tables_api.c). Whatever matches a packet is a set whose elements expire, so a
process that hangs traces nothing after its time.

- *begin_prerouting* and *begin_output* come before all other chains. They match the first packet of
  one client to the published port: the set ``flows`` has room for one flow per IP family.
- *end_postrouting* comes after all NAT. It remembers how the answer to this flow will look, so the
  answer is traced from its first chain on.
- All other chains have no rule. They are marks on the way: an event of theirs tells that a packet
  has come so far.

A table of the bridge family does the same for frames. It cannot see how a flow was translated, so
it matches all that the guest's port sends. On the node that runs the guest it also matches what
another node sends to the guest, where the client came in.
"""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.rules.commands import ADDRESS_TYPE, IP, devices, listed
from cgw_hooks.core.rules.names import PROTOCOL_NUMBER, TRACE_TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.published_port import Address, Network

#: Before the kernel assembles fragments (-400) and before raw tables (-300; -450 at the earliest),
#: and after everything else.
FIRST, LAST = -500, 500
#: After the kernel has assembled fragments.
_WHOLE = -399
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_BRIDGE_HOOKS = ("prerouting", "input", "postrouting")
#: The chains whose rules begin the trace of a packet.
REQUEST, ANSWER = "request", "answer"
#: The same for packets that the kernel has assembled of fragments: they have lost the mark.
WHOLE_REQUEST, WHOLE_ANSWER = "request_whole", "answer_whole"
WHOLE = "whole_prerouting"
_LIMIT = "limit rate 20/second burst 40 packets"
#: For frames other flows of the guest's port count as well.
_BRIDGE_LIMIT = "limit rate 100/second burst 100 packets"
#: The first packet of a TCP connection; NAT looks at no other one.
_OPENS = {"tcp": "tcp flags & (syn | ack) == syn ", "udp": "", "sctp": ""}
#: RFC 4443 section 3.4: a host that does not know a protocol reports the header that names it.
_UNREACHABLE = {
    4: "icmp type destination-unreachable",
    6: "icmpv6 type { destination-unreachable, parameter-problem }",
}


class Watched(NamedTuple):
    """One listening port of one IP family, and where it leads."""

    protocol: str
    #: Listening addresses of this node; none is unspecified.
    addresses: tuple[Address, ...]
    port: int
    target: Address
    target_port: int

    @property
    def family(self) -> int:
        """The IP version: 4 or 6."""
        return self.target.version


class Arming(NamedTuple):
    """What one trace is armed for."""

    #: All have the same protocol.
    watched: tuple[Watched, ...]
    #: Only clients of these networks; none: all.
    clients: tuple[Network, ...]
    #: The plain name of its tables.
    name: str
    seconds: int
    #: The inter-node devices of the guest's network.
    links: tuple[str, ...] = ()


def begin(hook: str) -> str:
    """Return the chain that comes first on a hook."""
    return f"begin_{hook}"


def end(hook: str) -> str:
    """Return the chain that comes last on a hook."""
    return f"end_{hook}"


def table_name(process: int) -> str:
    """Return the plain name of the tables of one trace."""
    return f"{TRACE_TABLE}_{process}"


def is_trace_table(table: str) -> bool:
    """Whether a table, for example ``inet cgw_trace_4711``, is one of any trace."""
    return table.partition(" ")[2].startswith(f"{TRACE_TABLE}_")


def inet_table(arming: Arming) -> str:
    """Return the table for routed packets and those of the node itself."""
    watched, seconds = arming.watched, arming.seconds
    protocol = watched[0].protocol
    lines = [f"table inet {arming.name} {{", "flags owner;"]
    for family, address in ADDRESS_TYPE.items():
        lines += _sets(family, watched, seconds)
        both = f"{address} . inet_service . {address} . inet_service"
        lines.append(_dynamic(f"answers{family}", both, 8, seconds))
        lines.append(_dynamic(f"peers{family}", f"{address} . {address}", 8, seconds))
    lines += _marking_chains(_LIMIT, (REQUEST, ANSWER, WHOLE_REQUEST, WHOLE_ANSWER))
    whole = [*_request_rules(protocol, arming.clients, WHOLE_REQUEST), *_answer_rules(WHOLE_ANSWER)]
    lines += _chain(WHOLE, "prerouting", _WHOLE, whole)
    for hook in HOOKS:
        rules: list[str] = []
        if hook in {"prerouting", "output"}:
            rules += _request_rules(protocol, arming.clients, REQUEST)
        if hook == "prerouting":
            rules += _answer_rules(ANSWER)
        lines += _chain(begin(hook), hook, FIRST, rules)
        rules = list(_learning_rules(protocol)) if hook == "postrouting" else []
        lines += _chain(end(hook), hook, LAST, rules)
    return "\n".join([*lines, "}", ""])


def bridge_table(arming: Arming) -> str:
    """Return the table for frames."""
    watched, protocol = arming.watched, arming.watched[0].protocol
    lines = [f"table bridge {arming.name} {{", "flags owner;"]
    for family, address in ADDRESS_TYPE.items():
        lines += _sets(family, watched, arming.seconds)
        guests = [f"{w.target} . {w.target_port}" for w in watched if w.family == family]
        kind = f"{address} . inet_service"
        lines.append(_timed(f"senders{family}", kind, guests, arming.seconds))
    lines += _marking_chains(_BRIDGE_LIMIT, (REQUEST, ANSWER))
    for hook in _BRIDGE_HOOKS:
        rules: list[str] = []
        if hook == "prerouting":
            rules += _request_rules(protocol, arming.clients, REQUEST)
            if arming.links:
                rules += _entering_rules(protocol, arming)
            number = PROTOCOL_NUMBER[protocol]
            rules += (
                f"meta l4proto {number} {ip} saddr . th sport @senders{family} jump {ANSWER}"
                for family, ip in IP.items()
            )
        lines += _chain(begin(hook), hook, FIRST, rules)
        lines += _chain(end(hook), hook, LAST, [])
    return "\n".join([*lines, "}", ""])


def _sets(family: int, watched: tuple[Watched, ...], seconds: int) -> Iterator[str]:
    address = ADDRESS_TYPE[family]
    places = [
        f"{listen} . {PROTOCOL_NUMBER[w.protocol]} . {w.port}"
        for w in watched
        if w.family == family
        for listen in w.addresses
    ]
    yield _timed(f"armed{family}", f"{address} . inet_proto . inet_service", places, seconds)
    yield _dynamic(f"flows{family}", f"{address} . inet_service", 1, seconds)


def _timed(name: str, kind: str, elements: list[str], seconds: int) -> str:
    """Return a set whose elements expire."""
    has = f" elements = {listed(f'{e} timeout {seconds}s' for e in elements)};" if elements else ""
    return f"set {name} {{ type {kind}; flags timeout;{has} }}"


def _dynamic(name: str, kind: str, size: int, seconds: int) -> str:
    """Return a set that rules fill."""
    return f"set {name} {{ type {kind}; flags dynamic,timeout; size {size}; timeout {seconds}s; }}"


def _marking_chains(limit: str, names: tuple[str, ...]) -> list[str]:
    return [
        line for name in names for line in (f"chain {name} {{", f"{limit} meta nftrace set 1", "}")
    ]


def _chain(name: str, hook: str, priority: int, rules: list[str]) -> list[str]:
    return [f"chain {name} {{", f"type filter hook {hook} priority {priority};", *rules, "}"]


def _request_rules(protocol: str, clients: tuple[Network, ...], target: str) -> Iterator[str]:
    for family, ip in IP.items():
        place = f"{ip} daddr . meta l4proto . th dport @armed{family}"
        yield from _marking(protocol, family, clients, place, target)


def _entering_rules(protocol: str, arming: Arming) -> Iterator[str]:
    """Yield rules for what another node, where the client came in, sends to a guest here."""
    number = PROTOCOL_NUMBER[protocol]
    for family, ip in IP.items():
        place = f"meta l4proto {number} {ip} daddr . th dport @senders{family}"
        link = f"iifname {devices(arming.links)}"
        yield from _marking(protocol, family, arming.clients, f"{link} {place}", REQUEST)


def _marking(
    protocol: str, family: int, clients: tuple[Network, ...], match: str, target: str
) -> Iterator[str]:
    ip = IP[family]
    networks = [network for network in clients if network.version == family]
    if clients and not networks:
        return
    by = f"{ip} saddr {listed(networks)} " if networks else ""
    flow = f"add @flows{family} {{ {ip} saddr . th sport }}"
    yield f"{by}{match} {_OPENS[protocol]}{flow} jump {target}"


def _answer_rules(target: str) -> Iterator[str]:
    for family, ip in IP.items():
        flow = f"{ip} saddr . th sport . {ip} daddr . th dport"
        yield f"{flow} @answers{family} jump {target}"
        yield f"{_UNREACHABLE[family]} {ip} saddr . {ip} daddr @peers{family} jump {target}"


def _learning_rules(protocol: str) -> Iterator[str]:
    number = PROTOCOL_NUMBER[protocol]
    for family, ip in IP.items():
        yield (
            f"meta l4proto {number} ct direction original "
            f"ct original {ip} saddr . ct original proto-src @flows{family} "
            f"add @answers{family} {{ {ip} daddr . th dport . {ip} saddr . th sport }} "
            f"add @peers{family} {{ {ip} daddr . {ip} saddr }}"
        )

"""One event of nft's trace, and the headers of its packet, as values.

Source: include/uapi/linux/netfilter/nf_tables.h (NFTA_TRACE_*), net/netfilter/nf_tables_trace.c;
RFC 791, RFC 8200, RFC 9293, RFC 9260.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.published_port import host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address

#: Kinds of events: a rule that matched, the end of a chain, the policy of a base chain.
RULE, RETURN, POLICY = "rule", "return", "policy"
#: Verdicts that end the way of a packet through all chains.
FINAL = frozenset({"drop", "stolen", "queue"})
#: Verdicts that lead to another chain.
JUMPS = frozenset({"jump", "goto"})

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_PORTS = struct.Struct("!HH")
#: What stands before the transport header of IPv6 (RFC 8200 section 4.1): the kernel does not tell
#: which header follows, but shows it. A trace looks at nothing but protocols with ports.
_EXTENSIONS = {0: "options", 43: "routed", 44: "fragment", 60: "options"}
_WITH_PORTS = frozenset({"tcp", "udp", "sctp", *_EXTENSIONS.values()})
_IPV4_SIZE, _IPV6_SIZE = 20, 40
_TCP_FLAGS_FIELD = 13
_ABORT = "ABORT"
_FLAGS = {0x02: "SYN", 0x10: "ACK", 0x01: "FIN", 0x04: "RST"}
#: The first chunk of an SCTP packet: RFC 9260 section 3.2.
_SCTP_CHUNK_FIELD = 12
_CHUNKS = {1: "INIT", 2: "INIT ACK", 6: _ABORT}
#: The type "destination unreachable": RFC 792 and RFC 4443 section 3.1.
#: RFC 4443 section 3.4: of a host that does not know the protocol.
_UNREACHABLE = {"icmp": ("3",), "icmpv6": ("1", "4")}


class Packet(NamedTuple):
    """The headers of a packet at one place of its way."""

    protocol: str
    source: Address
    destination: Address
    source_port: int = 0
    destination_port: int = 0
    #: TCP's flags, for example ``SYN ACK``; the first chunk of SCTP; the type of an ICMP message.
    flags: str = ""

    @property
    def is_refusal(self) -> bool:
        """Whether this is a host's answer that nothing listens: a reset, or an ICMP error."""
        if self.protocol == "tcp":
            return "RST" in self.flags.split()
        if self.protocol == "sctp":
            return self.flags == _ABORT
        return self.flags in _UNREACHABLE.get(self.protocol, ())

    @property
    def ends(self) -> tuple[Address, int, Address, int]:
        """The flow that the packet belongs to, in the packet's own direction."""
        return self.source, self.source_port, self.destination, self.destination_port

    @property
    def sender(self) -> str:
        """Source address and port as people read them."""
        return _place(self.source, self.source_port)

    @property
    def receiver(self) -> str:
        """Destination address and port as people read them."""
        return _place(self.destination, self.destination_port)

    def __str__(self) -> str:
        """Return the packet as ``192.0.2.7:40000 -> 192.0.2.1:8080 (tcp SYN)``."""
        note = " ".join(filter(None, (self.protocol, self.flags)))
        return f"{self.sender} -> {self.receiver} ({note})"


class TraceEvent(NamedTuple):
    """What one rule, the end of one chain, or one policy did with a packet."""

    #: The same number for all events of one packet.
    packet_id: int
    #: Family and name, for example ``ip filter``.
    table: str
    chain: str
    kind: str
    #: accept, drop, stolen, queue, continue, return, jump, goto ...
    verdict: str
    #: The handle of the rule.
    handle: int = 0
    #: The chain that a jump leads to.
    target: str = ""
    #: Only in the first event of each base chain.
    packet: Packet | None = None
    #: The names of the devices; empty where the packet has none yet.
    came_by: str = ""
    leaves_by: str = ""


def parse_packet(network: bytes, transport: bytes) -> Packet | None:
    """Read the first bytes of both headers; None if they are those of no IP packet."""
    version = network[0] >> 4 if network else 0
    if version == 4 and len(network) >= _IPV4_SIZE:  # noqa: PLR2004
        number = network[9]
        source: Address = IPv4Address(network[12:16])
        destination: Address = IPv4Address(network[16:20])
    elif version == 6 and len(network) >= _IPV6_SIZE:  # noqa: PLR2004
        number = network[6]
        source, destination = IPv6Address(network[8:24]), IPv6Address(network[24:40])
    else:
        return None
    names = _PROTOCOLS if version == 4 else {**_PROTOCOLS, **_EXTENSIONS}  # noqa: PLR2004
    protocol = names.get(number, str(number))
    found = Packet(protocol, source, destination)
    if protocol in _WITH_PORTS and len(transport) >= _PORTS.size:
        ports = _PORTS.unpack_from(transport)
        return found._replace(
            source_port=ports[0], destination_port=ports[1], flags=_flags(protocol, transport)
        )
    if protocol in _UNREACHABLE and transport:
        return found._replace(flags=str(transport[0]))
    return found


def _flags(protocol: str, transport: bytes) -> str:
    if protocol == "tcp" and len(transport) > _TCP_FLAGS_FIELD:
        bits = transport[_TCP_FLAGS_FIELD]
        return " ".join(name for bit, name in _FLAGS.items() if bits & bit)
    if protocol == "sctp" and len(transport) > _SCTP_CHUNK_FIELD:
        return _CHUNKS.get(transport[_SCTP_CHUNK_FIELD], "")
    return ""


def _place(address: Address, port: int) -> str:
    return f"{host(address)}:{port}" if port else str(address)

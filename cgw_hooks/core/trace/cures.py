"""What lets a packet pass that a chain has dropped, where `core/firewall_cures` does not know it.

These are the chains of cgw itself, of programs that make their rules anew, and of bridges.
"""

from __future__ import annotations

import re

from cgw_hooks.core.firewall_cures import cure_of_firewalld
from cgw_hooks.core.rules.names import is_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.trace.events import Packet
    from cgw_hooks.core.trace.passage import Visit

_LIBVIRT_TABLE, _LIBVIRT_CHAINS = "libvirt_network", "LIBVIRT_"
_FIREWALLD = "inet firewalld"
#: Names that people can type as they are. A program may give any name to its tables and chains.
_NAME = re.compile(r"[A-Za-z_.][A-Za-z0-9_.-]*")


def cure_of_owner(visit: Visit) -> str:
    """Return the cure if the program that made the chain has one of its own; else empty."""
    name = visit.table.partition(" ")[2]
    is_libvirts = name == _LIBVIRT_TABLE or visit.decision.chain.startswith(_LIBVIRT_CHAINS)
    if is_own(visit.table) or is_libvirts:  # cgw puts an exception in front of libvirt's rules
        return "run: cgw sync"
    if visit.table == _FIREWALLD:
        return cure_of_firewalld(visit.decision.chain)
    return ""


def other_cure(visit: Visit, *, is_answer: bool) -> str:
    """Return a rule of nft that lets this packet pass, in the direction that was dropped."""
    name = visit.table.partition(" ")[2]
    if visit.packet is None or not (_NAME.fullmatch(name) and _NAME.fullmatch(visit.chain)):
        return "see: nft list ruleset"
    match = _match(visit.packet, is_answer=is_answer)
    return f"run: nft 'insert rule {visit.table} {visit.chain} {match} accept'"


def _match(packet: Packet, *, is_answer: bool) -> str:
    ip = "ip" if packet.source.version == 4 else "ip6"  # noqa: PLR2004
    if is_answer:
        place = f"{ip} saddr {packet.source}"
        if not packet.source_port:  # an ICMP error
            return f"{place} meta l4proto {packet.protocol}"
        return f"{place} {packet.protocol} sport {packet.source_port}"
    return f"{ip} daddr {packet.destination} {packet.protocol} dport {packet.destination_port}"

"""The command that lets a packet pass which another program's rule has dropped."""

from __future__ import annotations

import re

from cgw_hooks.core.rules.names import is_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.trace.events import Packet
    from cgw_hooks.core.trace.passage import Passage, Visit

#: Names that people can type as they are. A program may give any name to its tables and chains.
_NAME = re.compile(r"[A-Za-z_.][A-Za-z0-9_.-]*")
_IPTABLES = {"ip": "iptables", "ip6": "ip6tables"}
_IPTABLES_TABLES = frozenset({"filter", "mangle", "raw", "security"})
_DOCKER, _LIBVIRT = "DOCKER-USER", "LIBVIRT_"
#: What the names of the chains of ufw begin with, for IPv4 and IPv6.
_UFW = ("ufw-", "ufw6-")
_FORWARD, _BRIDGE = "FORWARD", "bridge"
#: The hooks whose packets connection tracking has seen and translated.
_TRACKED = frozenset({"forward", "output", "postrouting"})
_LIBVIRT_TABLE, _FIREWALLD = "libvirt_network", "firewalld"
_STRICT = (
    "set StrictForwardPorts=no in /etc/firewalld/firewalld.conf, then run: firewall-cmd --reload"
)


def cure(passage: Passage, *, is_answer: bool) -> str:
    """Return the cure for the end of a passage; empty if there is no general one."""
    visit = passage.end
    if visit is None or visit.packet is None:
        return ""
    if is_own(visit.table) or _is_libvirt(visit):
        return "run: cgw sync"
    name = visit.table.partition(" ")[2]
    if name == _FIREWALLD:
        return "see: firewall-cmd --list-all-policies" if is_answer else _STRICT
    if not (_NAME.fullmatch(name) and _NAME.fullmatch(visit.chain)):
        return "see: nft list ruleset"
    return f"run: {_command(passage, visit, visit.packet, is_answer=is_answer)}"


def _is_libvirt(visit: Visit) -> bool:
    """Whether libvirt's firewall has decided: cgw puts an exception in front of it."""
    name = visit.table.partition(" ")[2]
    return name == _LIBVIRT_TABLE or visit.decision.chain.startswith(_LIBVIRT)


def _command(passage: Passage, visit: Visit, packet: Packet, *, is_answer: bool) -> str:
    family, _, name = visit.table.partition(" ")
    is_iptables = family in _IPTABLES and name in _IPTABLES_TABLES and visit.chain.isupper()
    chains = {visit.chain, *visit.jumped_to}
    if is_iptables and not is_answer and any(chain.startswith(_UFW) for chain in chains):
        to = f"to {packet.destination} port {packet.destination_port}"
        return f"ufw route allow proto {packet.protocol} {to}"
    is_both_ways = passage.hook in _TRACKED and family != _BRIDGE and bool(packet.source_port)
    if is_iptables:
        chain = _DOCKER if visit.chain == _FORWARD and _DOCKER in chains else visit.chain
        command = [_IPTABLES[family], *([] if name == "filter" else ["-t", name]), "-I", chain]
        match = _iptables_flow if is_both_ways else _iptables_packet
        return " ".join([*command, *match(packet, is_answer=is_answer), "-j", "ACCEPT"])
    match = _nft_flow if is_both_ways else _nft_packet
    command = ["nft insert rule", visit.table, visit.chain]
    return " ".join([*command, *match(packet, is_answer=is_answer), "accept"])


def _guest(packet: Packet, *, is_answer: bool) -> tuple[str, str]:
    """Return address and port of the guest, of a packet that is translated."""
    if is_answer:
        return str(packet.source), str(packet.source_port)
    return str(packet.destination), str(packet.destination_port)


# What forwards packets drops both directions, mostly. So what is translated for this port of the
# guest is accepted in both, by the flow's answer: "ctrepl" and "ct reply".


def _iptables_flow(packet: Packet, *, is_answer: bool) -> list[str]:
    address, port = _guest(packet, is_answer=is_answer)
    flow = ["-m", "conntrack", "--ctstate", "DNAT"]
    return ["-p", packet.protocol, *flow, "--ctreplsrc", address, "--ctreplsrcport", port]


def _nft_flow(packet: Packet, *, is_answer: bool) -> list[str]:
    address, port = _guest(packet, is_answer=is_answer)
    ip = "ip" if packet.source.version == 4 else "ip6"  # noqa: PLR2004
    flow = ["ct status dnat", "ct reply", ip, "saddr", address]
    return ["meta l4proto", packet.protocol, *flow, "ct reply proto-src", port]


def _iptables_packet(packet: Packet, *, is_answer: bool) -> list[str]:
    words = ["-p", "ipv6-icmp" if packet.protocol == "icmpv6" else packet.protocol]
    address, port = _guest(packet, is_answer=is_answer)
    words += ["-s" if is_answer else "-d", address]
    if packet.source_port:
        words += ["--sport" if is_answer else "--dport", port]
    return words


def _nft_packet(packet: Packet, *, is_answer: bool) -> list[str]:
    ip = "ip" if packet.source.version == 4 else "ip6"  # noqa: PLR2004
    address, port = _guest(packet, is_answer=is_answer)
    words = [ip, "saddr" if is_answer else "daddr", address]
    if packet.source_port:
        return [*words, packet.protocol, "sport" if is_answer else "dport", port]
    return [*words, "meta l4proto", packet.protocol]

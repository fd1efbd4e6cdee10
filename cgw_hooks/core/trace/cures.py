"""The command that lets a packet pass which another program's rule has dropped."""

from __future__ import annotations

from cgw_hooks.core.rules.names import BRIDGE_TABLE, FAMILY_TABLES, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.trace.events import Packet
    from cgw_hooks.core.trace.passage import Passage, Visit

_OWN = {TABLE, BRIDGE_TABLE, *FAMILY_TABLES.values()}
_IPTABLES = {"ip": "iptables", "ip6": "ip6tables"}
_IPTABLES_TABLES = frozenset({"filter", "mangle", "raw", "security"})
_DOCKER, _UFW, _LIBVIRT = "DOCKER-USER", "ufw-", "LIBVIRT_"
_FORWARD = "FORWARD"
_LIBVIRT_TABLE, _FIREWALLD = "libvirt_network", "firewalld"
_STRICT = (
    "set StrictForwardPorts=no in /etc/firewalld/firewalld.conf, then run: firewall-cmd --reload"
)


def cure(passage: Passage, *, is_answer: bool) -> str:
    """Return the cure for the end of a passage; empty if there is no general one."""
    visit = passage.end
    if visit is None or visit.packet is None:
        return ""
    if visit.table in _OWN:
        return "run: cgw sync"
    name = visit.table.partition(" ")[2]
    if name == _LIBVIRT_TABLE or visit.decision.chain.startswith(_LIBVIRT):
        return "run: cgw sync"
    if name == _FIREWALLD:
        return "see: firewall-cmd --list-all-policies" if is_answer else _STRICT
    return f"run: {_command(visit, visit.packet, is_answer=is_answer)}"


def _command(visit: Visit, packet: Packet, *, is_answer: bool) -> str:
    family, _, name = visit.table.partition(" ")
    if family not in _IPTABLES or name not in _IPTABLES_TABLES or not visit.chain.isupper():
        return _nft(visit, packet, is_answer=is_answer)
    chains = {visit.chain, *visit.jumped_to}
    if any(chain.startswith(_UFW) for chain in chains) and not is_answer:
        to = f"to {packet.destination} port {packet.destination_port}"
        return f"ufw route allow proto {packet.protocol} {to}"
    chain = _DOCKER if visit.chain == _FORWARD and _DOCKER in chains else visit.chain
    return _iptables(family, name, chain, packet, is_answer=is_answer)


def _iptables(family: str, table: str, chain: str, packet: Packet, *, is_answer: bool) -> str:
    words = [_IPTABLES[family]]
    if table != "filter":
        words += ["-t", table]
    words += ["-I", chain, "-p", _protocol(packet)]
    if is_answer:
        words += ["-s", str(packet.source)]
        words += ["--sport", str(packet.source_port)] if packet.source_port else []
    else:
        words += ["-d", str(packet.destination), "--dport", str(packet.destination_port)]
    return " ".join([*words, "-j", "ACCEPT"])


def _nft(visit: Visit, packet: Packet, *, is_answer: bool) -> str:
    ip = "ip" if packet.source.version == 4 else "ip6"  # noqa: PLR2004
    words = ["nft insert rule", visit.table, visit.chain]
    if is_answer:
        words += [ip, "saddr", str(packet.source)]
        if packet.source_port:
            words += [packet.protocol, "sport", str(packet.source_port)]
        else:
            words += ["meta l4proto", packet.protocol]
    else:
        words += [ip, "daddr", str(packet.destination)]
        words += [packet.protocol, "dport", str(packet.destination_port)]
    return " ".join([*words, "accept"])


def _protocol(packet: Packet) -> str:
    return "ipv6-icmp" if packet.protocol == "icmpv6" else packet.protocol

"""The command that makes a chain of another program let the packets of published ports pass."""

from __future__ import annotations

import re
import shlex

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.packet_filter import JUMP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.packet_filter import Chain
    from cgw_hooks.core.published_port import PublishedPort

#: Docker never changes this chain, and jumps to it first.
_DOCKER_USER = "DOCKER-USER"
_UFW = {"ufw-user-forward", "ufw6-user-forward"}
#: cgw translates at -105, and conntrack begins at -200 (NF_IP_PRI_CONNTRACK).
_TRANSLATED, _TRACKED = -105, -200
#: With more ports than this, a command for each of them would be too long.
_MOST_COMMANDS = 8
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
#: The chain where firewalld 2.1 and later reject translated packets, if it is told to.
_STRICT_CHAIN = "filter_FORWARD_dnat"
_NOT_STRICT = (
    "run: sed -i 's/^StrictForwardPorts=.*/StrictForwardPorts=no/' /etc/firewalld/firewalld.conf; "
    "firewall-cmd --reload"
)


class Stopped(NamedTuple):
    """Packets of published ports that a base chain drops."""

    chain: Chain
    #: The device of the guests.
    device: str
    #: Whether they come from the guest; otherwise from the client.
    is_answer: bool
    #: On a bridge, from port to port, with br_netfilter.
    is_bridged: bool = False
    #: The chain whose rule drops them; empty: the base chain's policy does.
    by: str = ""


def cure_of_firewalld(chain: str) -> str:
    """Return what to do where a rule of this chain of firewalld drops packets."""
    return _NOT_STRICT if chain == _STRICT_CHAIN else "see: firewall-cmd --list-all-policies"


def command(stopped: Stopped, ports: list[PublishedPort]) -> str:
    """Return the command; empty if there is none that people should type."""
    chain = stopped.chain
    # What is inserted there is gone with the next reload.
    if (
        chain.is_owned
        or chain.table.endswith(" firewalld")
        or not all(map(_NAME.fullmatch, (*chain.table.split(), chain.name)))
    ):
        return ""
    if stopped.device and not _NAME.fullmatch(stopped.device):
        return ""
    if chain.tool == "nft":
        return _of_nft(stopped, ports)
    # ufw's rules do not help against a rule in front of its chains.
    is_of_ufw = not _UFW.isdisjoint(chain.rules) and (not stopped.by or "ufw" in stopped.by)
    if is_of_ufw and chain.hook == "forward" and not stopped.is_bridged:
        found = _of_ufw(ports)
        if len(found) <= _MOST_COMMANDS:
            return "; ".join(found)
    return _of_iptables(stopped, ports)


def _of_nft(stopped: Stopped, ports: list[PublishedPort]) -> str:
    chain = stopped.chain
    place = f"insert rule {chain.table} {chain.name}"
    find = _frame_matches if chain.is_of_bridge else _nft_matches
    rules = [f"{place} {match} accept" for match in find(stopped, ports)]
    return "nft " + shlex.quote("; ".join(rules))


def _frame_matches(stopped: Stopped, ports: list[PublishedPort]) -> list[str]:
    """Return the matches of a chain of bridges, which knows no connections."""
    is_to_guest = (stopped.chain.hook in {"output", "postrouting"}) != stopped.is_answer
    field = "sport" if stopped.is_answer else "dport"
    return _each(ports, field, translated=is_to_guest, before="")


def _nft_matches(stopped: Stopped, ports: list[PublishedPort]) -> list[str]:
    chain, device = stopped.chain, stopped.device
    if stopped.is_bridged:
        return [f'iifname "{device}" oifname "{device}"']
    if chain.hook != "prerouting":
        # Both directions: the answers of these connections must pass as well.
        return [f'{way} "{device}" ct status dnat' for way in ("oifname", "iifname")]
    if stopped.is_answer:
        if chain.priority > _TRACKED:
            return [f'iifname "{device}" ct status dnat']
        return _each(ports, "sport", translated=True, before=f'iifname "{device}"')
    if chain.priority > _TRANSLATED:
        return ["ct status dnat"]
    return _each(ports, "dport", translated=False, before="fib daddr type local")


def _each(ports: list[PublishedPort], field: str, *, translated: bool, before: str) -> list[str]:
    found = []
    for port in ports:
        first = port.to if translated else port.start
        last = first + port.end - port.start
        numbers = f"{first}-{last}" if last > first else f"{first}"
        family = "ip" if port.family == 4 else "ip6"  # noqa: PLR2004
        side = "saddr" if field == "sport" else "daddr"
        where = f" {family} {side} {port.target_address}" if translated else ""
        found.append(f"{before}{where} {port.protocol} {field} {numbers}".strip())
    return list(dict.fromkeys(found))


def _of_iptables(stopped: Stopped, ports: list[PublishedPort]) -> str:
    chain, device = stopped.chain, stopped.device
    name = chain.name
    has_docker = any(
        rule.action == JUMP and rule.target == _DOCKER_USER
        for rule in chain.rules.get(chain.name, ())
    )
    if has_docker:
        name = _DOCKER_USER
    table = "" if chain.table == "filter" else f" -t {chain.table}"
    begin = f"{chain.tool}{table} -w -I {name}"
    if stopped.is_bridged:
        return f"{begin} -i {device} -o {device} -m physdev --physdev-is-bridged -j ACCEPT"
    translated = "-m conntrack --ctstate DNAT -j ACCEPT"
    if chain.hook == "forward":
        return "; ".join(f"{begin} {way} {device} {translated}" for way in ("-o", "-i"))
    if chain.hook == "postrouting":
        return f"{begin} {translated}"
    if stopped.is_answer and chain.priority > _TRACKED:
        return f"{begin} -i {device} {translated}"
    if not stopped.is_answer and chain.priority > _TRANSLATED:
        return f"{begin} {translated}"
    option = "--sport" if stopped.is_answer else "--dport"
    local = f"-i {device}" if stopped.is_answer else "-m addrtype --dst-type LOCAL"
    lines = []
    for port in ports:
        first = port.to if stopped.is_answer else port.start
        last = first + port.end - port.start
        numbers = f"{first}:{last}" if last > first else f"{first}"
        lines.append(f"{begin} {local} -p {port.protocol} {option} {numbers} -j ACCEPT")
    return "; ".join(dict.fromkeys(lines))


def _of_ufw(ports: list[PublishedPort]) -> list[str]:
    """Return ufw's own commands: they outlive a reload, and ufw lets the answers pass."""
    found = []
    for port in ports:
        last = port.to + port.end - port.start
        numbers = f"{port.to}:{last}" if last > port.to else f"{port.to}"
        to = f"to {port.target_address} port {numbers}"
        sources = map(str, port.sources or ("any",))
        found += [f"ufw route allow proto {port.protocol} from {by} {to}" for by in sources]
    return list(dict.fromkeys(found))

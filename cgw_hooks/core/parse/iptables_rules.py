"""Output of ``iptables-save`` -> base chains with their rules (``core/packet_filter``).

nft does not name all conditions of these rules in JSON. What is not understood here becomes a
condition or an action that is unknown. Source: iptables(8), iptables-extensions(8).
"""

from __future__ import annotations

import shlex
from ipaddress import ip_network

from cgw_hooks.core.packet_filter import (
    ACCEPT,
    CONTINUE,
    DROP,
    EXCESS,
    GOTO,
    JUMP,
    MARK,
    NOT_UNDERSTOOD,
    RETURN,
    UNKNOWN,
    Chain,
    Match,
    Range,
    Rule,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HOOKS = {
    "PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}  # fmt: skip
#: include/uapi/linux/netfilter_ipv4.h: the priorities of the tables, and of nat by hook.
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_NAT_PRIORITIES = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}
_TARGETS = {
    "ACCEPT": ACCEPT, "DROP": DROP, "REJECT": DROP, "RETURN": RETURN,
    "DNAT": ACCEPT, "SNAT": ACCEPT, "MASQUERADE": ACCEPT, "REDIRECT": ACCEPT, "NETMAP": ACCEPT,
    "MARK": MARK, "CONNMARK": MARK,
    **dict.fromkeys(("LOG", "NFLOG", "ULOG", "CT", "NOTRACK", "TCPMSS",
                     "CHECKSUM", "CLASSIFY", "DSCP", "TOS", "TTL", "HL", "SET", "TRACE",
                     "AUDIT", "SECMARK", "CONNSECMARK"), CONTINUE),
}  # fmt: skip
_STATES = {"--ctstate", "--state"}
#: The states of conntrack that nft calls a status.
_STATUS = {"DNAT": "dnat", "SNAT": "snat"}
_NUMBERS = {"6": "tcp", "17": "udp", "132": "sctp"}
#: The options of limits that match what exceeds them.
_EXCESSES = {"--hashlimit-above", "--connlimit-above"}


def _network(text: str) -> tuple[object, ...]:
    return (ip_network(text, strict=False),)


def _device(text: str) -> tuple[object, ...]:
    return (text[:-1] + "*" if text.endswith("+") else text,)


def _protocol(text: str) -> tuple[object, ...]:
    return (_NUMBERS.get(text, text),)


def _ports(text: str) -> tuple[object, ...]:
    spans = (span.partition(":") for span in text.split(","))
    return tuple(Range(int(first), int(last or first)) for first, _, last in spans)


def _word(text: str) -> tuple[object, ...]:
    return (text.lower(),)


def _mark(text: str) -> tuple[object, ...]:
    value, _, _ = text.partition("/")  # cgw asks only for packets whose mark is 0
    return (int(value, 0),)


#: Option -> the packet's field, and what reads its values.
_FIELDS: dict[str, tuple[str, Callable[[str], tuple[object, ...]]]] = {
    "-s": ("saddr", _network), "-d": ("daddr", _network),
    "-i": ("iif", _device), "-o": ("oif", _device),
    "-p": ("protocol", _protocol),
    "--sport": ("sport", _ports), "--sports": ("sport", _ports),
    "--dport": ("dport", _ports), "--dports": ("dport", _ports),
    "--dst-type": ("daddr type", _word), "--ctdir": ("direction", _word), "--mark": ("mark", _mark),
}  # fmt: skip


def parse_rules(text: str, version: int, tool: str) -> Iterator[Chain]:
    """Yield the base chains of all tables. ``version`` is 4 or 6; ``tool`` changes the rules."""
    table, policies = "", dict[str, str]()
    rules: dict[str, list[Rule]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table, policies, rules = line[1:], {}, {}
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            policies[name] = policy.lower()
            rules.setdefault(name, [])
        elif line.startswith("-A "):
            name = line.split()[1]
            rules.setdefault(name, []).append(_rule(line, policies))
        elif line == "COMMIT":
            frozen = {name: tuple(found) for name, found in rules.items()}
            for name, hook in _HOOKS.items():
                if policies.get(name, "-") != "-":
                    yield Chain(
                        table, name, hook, _priority(table, hook), policies[name], (version,), tool,
                        frozen,
                    )  # fmt: skip


def _priority(table: str, hook: str) -> int:
    return _NAT_PRIORITIES.get(hook, 0) if table == "nat" else _PRIORITIES.get(table, 0)


def _rule(line: str, chains: dict[str, str]) -> Rule:
    try:
        words = shlex.split(line)[2:]
    except ValueError:  # a comment with an odd quote
        return Rule((Match(NOT_UNDERSTOOD),), UNKNOWN, "", line)
    matches: list[Match] = []
    action, target, negated = CONTINUE, "", False
    while words:
        option, words = words[0], words[1:]
        if option == "!":
            negated = True
            continue
        given = words[:1] if option == "--comment" else []
        del words[: len(given)]
        while words and words[0] != "!" and not words[0].startswith("-"):
            given.append(words.pop(0))
        if option in {"-j", "-g"}:
            target = given[0] if given else ""
            action = _action(option, target, chains)
            break  # the rest are the target's own options
        if option not in {"-m", "--comment"}:
            matches.append(_match(option, given, negated=negated))
        negated = False
    return Rule(tuple(matches), action, target, line)


def _action(option: str, target: str, chains: dict[str, str]) -> str:
    if target in chains:
        return GOTO if option == "-g" else JUMP
    return _TARGETS.get(target, UNKNOWN)


def _match(option: str, given: list[str], *, negated: bool) -> Match:
    """Return the condition of an option with its values."""
    if option in _EXCESSES:
        return Match(EXCESS)
    if option == "--match-set" and given[1:] == ["src"]:
        return Match("saddr", (), negated)
    if option.startswith("--physdev-"):
        return Match("bridged", (True,), negated)
    if option in _STATES and len(given) == 1:
        return _state(given[0].split(","), negated=negated)
    field, read = _FIELDS.get(option, (NOT_UNDERSTOOD, _word))
    try:
        return Match(field, read(*given), negated)
    except (TypeError, ValueError):  # no value, or several
        return Match(NOT_UNDERSTOOD)


def _state(words: list[str], *, negated: bool) -> Match:
    """Return the match of ``--ctstate``. Its states and its status are different fields of nft."""
    status = tuple(_STATUS[word] for word in words if word in _STATUS)
    if not status:
        return Match("state", tuple(word.lower() for word in words), negated)
    if len(status) == len(words):
        return Match("status", status, negated)
    return Match(NOT_UNDERSTOOD)

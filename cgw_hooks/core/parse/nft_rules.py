"""Output of ``nft -j list table`` -> base chains with their rules (``core/packet_filter``).

What is not understood becomes a condition or an action that is unknown.
Source: libnftables-json(5).
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from cgw_hooks.core.named_tuple import NamedTuple
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
    from collections.abc import Iterator
    from typing import Any

_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6), "bridge": (4, 6)}
#: Each element of a set is compared with the packets of each published port.
_LONGEST_SET = 4096
_NOT_KNOWN = Match(NOT_UNDERSTOOD)
_ENDS = {
    "accept": ACCEPT, "drop": DROP, "reject": DROP, "return": RETURN, "queue": UNKNOWN,
    # Statements of a NAT chain end it, and the packet goes on.
    "dnat": ACCEPT, "snat": ACCEPT, "masquerade": ACCEPT, "redirect": ACCEPT,
    "tproxy": UNKNOWN, "synproxy": UNKNOWN, "fwd": UNKNOWN,
}  # fmt: skip
_META = {
    "iifname": "iif", "iif": "iif", "oifname": "oif", "oif": "oif", "l4proto": "protocol",
    "mark": "mark", "nfproto": "family",
}  # fmt: skip
_CT = {"state": "state", "status": "status", "direction": "direction", "mark": "ct mark"}
#: The words of nft -> the values of a packet's fields.
_NUMBERS: dict[object, object] = {6: "tcp", 17: "udp", 132: "sctp"}
_VERSIONS: dict[object, object] = {"ipv4": 4, "ipv6": 6}
_TRANSPORTS = ("tcp", "udp", "sctp")


class _Table(NamedTuple):
    family: str
    name: str
    sets: dict[str, list[Any]]


def parse_rules(listed: dict[str, Any]) -> Iterator[Chain]:
    """Yield the base chains of one or more listed tables, of IP and of bridges."""
    items = [next(iter(item.items())) for item in listed.get("nftables", ()) if item]
    flags = {
        (found["family"], found["name"]): _listed(found.get("flags", ()))
        for kind, found in items
        if kind == "table"
    }
    for (family, name), of_table in flags.items():
        if family not in _FAMILIES or "dormant" in of_table:
            continue
        own = [
            (kind, found)
            for kind, found in items
            if found.get("family") == family and found.get("table") == name
        ]
        sets = {f["name"]: f.get("elem", []) for kind, f in own if kind in {"set", "map"}}
        rules: dict[str, list[Rule]] = {}
        for kind, found in own:
            if kind == "rule":
                made = _rules(found, _Table(family, name, sets))
                rules.setdefault(found["chain"], []).extend(made)
        frozen = {chain: tuple(found) for chain, found in rules.items()}
        for kind, found in own:
            if kind == "chain" and "hook" in found:
                yield Chain(
                    f"{family} {name}", found["name"], found["hook"], int(found.get("prio", 0)),
                    found.get("policy", ACCEPT), _FAMILIES[family], "nft", frozen,
                    "owner" in of_table,
                )  # fmt: skip


def has_extensions(listed: dict[str, Any]) -> bool:
    """Whether a listing has rules of iptables that nft does not name in JSON."""
    return any(
        "xt" in statement
        for item in listed.get("nftables", ())
        for statement in item.get("rule", {}).get("expr", ())
    )


def _rules(found: dict[str, Any], table: _Table) -> Iterator[Rule]:
    """Yield the rules of one rule: a verdict map has one for each of its elements."""
    matches: list[Match] = []
    last = CONTINUE
    text = f"the rule with handle {found.get('handle', '?')}"
    for statement in found.get("expr", ()):
        kind, given = next(iter(statement.items()))
        if kind == "match":
            matches += _matches(given, table)
        elif kind == "limit":
            matches.append(Match(EXCESS if given.get("inv") else NOT_UNDERSTOOD))
        elif kind == "mangle" and _field(given["key"])[0] in {"mark", "ct mark"}:
            last = MARK
        elif kind == "xt":
            if (given or {}).get("type") == "target":
                yield Rule(tuple(matches), UNKNOWN, "", text)
                return
            matches.append(_NOT_KNOWN)
        elif kind == "vmap":
            yield from _of_verdict_map(given, matches, table, text)
            return
        elif kind in _ENDS or kind in {"jump", "goto"}:
            yield _ending(statement, matches, text)
            return
    yield Rule(tuple(matches), last, "", text)


def _ending(statement: dict[str, Any], matches: list[Match], text: str) -> Rule:
    kind, given = next(iter(statement.items()))
    if kind in {"jump", "goto"}:
        return Rule(tuple(matches), JUMP if kind == "jump" else GOTO, given["target"], text)
    return Rule(tuple(matches), _ENDS.get(kind, UNKNOWN), "", text)


def _of_verdict_map(
    given: dict[str, Any], matches: list[Match], table: _Table, text: str
) -> Iterator[Rule]:
    for pair in _elements(given["data"], table):
        if not isinstance(pair, list) or not isinstance(pair[-1], dict):
            yield Rule((*matches, _NOT_KNOWN), UNKNOWN, "", text)
            continue
        key = {"op": "==", "left": given["key"], "right": _plain(pair[0])}
        yield _ending(pair[-1], [*matches, *_matches(key, table)], text)


def _matches(given: dict[str, Any], table: _Table) -> list[Match]:
    """Return the conditions of a match statement."""
    left, negated = given["left"], given["op"] == "!="
    if given["op"] not in {"==", "!=", "in"}:
        return [_NOT_KNOWN]
    masked = left.get("&") if isinstance(left, dict) else None
    if isinstance(masked, list) and _is_like_unmasked(masked, given["right"]):
        left = masked[0]
    field, needed = _field(left)
    if field == "saddr":  # no packet has one, and a ban list may be long
        return [*needed, Match(field, (), negated)]
    given_values = _elements(given["right"], table)
    if field == NOT_UNDERSTOOD or len(given_values) > _LONGEST_SET:
        return [*needed, _NOT_KNOWN]
    values = [_value(field, each) for each in given_values]
    if None in values:
        return [*needed, _NOT_KNOWN]
    return [*needed, Match(field, tuple(values), negated)]


def _is_like_unmasked(masked: list[Any], right: object) -> bool:
    """Whether a match means the same without its mask, as far as cgw asks.

    `ct status & dnat == dnat` is `ct status dnat`; of marks, cgw asks only for packets whose mark
    is 0.
    """
    field, _ = _field(masked[0])
    return field in {"mark", "ct mark"} or (field == "status" and masked[1] == right)


def _field(left: Any) -> tuple[str, list[Match]]:
    """Return the packet's field, and the conditions without which a packet has no such field."""
    if not isinstance(left, dict):
        return NOT_UNDERSTOOD, []
    if "meta" in left:
        return _META.get(left["meta"].get("key"), NOT_UNDERSTOOD), []
    if "ct" in left and "dir" not in left["ct"]:
        return _CT.get(left["ct"].get("key"), NOT_UNDERSTOOD), []
    if "fib" in left and left["fib"].get("result") == "type":
        flags = _listed(left["fib"].get("flags", ()))
        return ("daddr type" if flags == ["daddr"] else NOT_UNDERSTOOD), []
    if "payload" in left:
        return _of_header(left["payload"])
    return NOT_UNDERSTOOD, []


def _of_header(payload: dict[str, Any]) -> tuple[str, list[Match]]:
    header, field = payload.get("protocol"), payload.get("field")
    if header in {"ip", "ip6"}:
        needed = [Match("family", (4 if header == "ip" else 6,))]
        if field in {"protocol", "nexthdr"}:
            return "protocol", needed
        return (str(field) if field in {"saddr", "daddr"} else NOT_UNDERSTOOD), needed
    is_port = field in {"sport", "dport"}
    if header == "th":
        return (str(field) if is_port else NOT_UNDERSTOOD), []
    if header is None:
        return NOT_UNDERSTOOD, []
    return (
        str(field) if is_port and header in _TRANSPORTS else NOT_UNDERSTOOD,
        [Match("protocol", (header,))],
    )


def _elements(right: Any, table: _Table) -> list[Any]:
    """Return the values of the right side: one, those of a set, or those of a named set."""
    if isinstance(right, str) and right.startswith("@"):
        return [_plain(each) for each in table.sets.get(right[1:], [])]
    if isinstance(right, dict) and "set" in right:
        inner = right["set"]
        return [_plain(each) for each in (inner if isinstance(inner, list) else [inner])]
    return right if isinstance(right, list) else [right]


def _plain(element: Any) -> Any:
    """Return an element without its counter, timeout and comment."""
    if isinstance(element, dict) and "elem" in element:
        return element["elem"].get("val")
    if isinstance(element, list):
        return [_plain(part) for part in element]
    return element


def _value(field: str, given: Any) -> object:
    """Return a value as packets have it; None if it is not understood."""
    try:
        if isinstance(given, dict):
            return _several(field, given)
        if field in {"saddr", "daddr"}:
            return ip_address(given)
    except (KeyError, TypeError, ValueError):
        return None
    words = {"protocol": _NUMBERS, "family": _VERSIONS}.get(field, {})
    return words.get(given, given) if isinstance(given, str | int) else None


def _several(field: str, given: dict[str, Any]) -> object:
    """Return a network or a range of ports."""
    if "prefix" in given:
        return ip_network(f"{given['prefix']['addr']}/{given['prefix']['len']}", strict=False)
    if "range" in given and field in {"sport", "dport"}:
        return Range(*map(int, given["range"]))
    return None


def _listed(flags: Any) -> list[str]:
    return [flags] if isinstance(flags, str) else list(flags)

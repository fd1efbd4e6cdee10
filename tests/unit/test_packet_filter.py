"""What other programs' rules do with a packet: nft's JSON and iptables-save, rule by rule."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from cgw_hooks.core.packet_filter import (
    ACCEPT,
    DROP,
    UNKNOWN,
    Chain,
    Packet,
    Range,
    for_packets_like,
    outcomes,
)
from cgw_hooks.core.parse import iptables_rules, nft_rules

pytestmark = pytest.mark.unit

#: The first packet of a client to 10.5.5.11 port 22, behind the translation.
PACKET: Packet = {
    "family": 4, "protocol": "tcp", "iif": "eth0", "oif": "br0", "daddr": ip_address("10.5.5.11"),
    "dport": 22, "sport": Range(1024, 65535), "state": "new", "direction": "original",
    "status": frozenset({"dnat"}), "daddr type": "unicast", "mark": 0, "bridged": False,
}  # fmt: skip
CERTAIN, POSSIBLE, NEVER = "certain", "possible", "never"


def verdict(chain: Chain, packet: Packet) -> str:
    """Whether a packet is dropped; the same if the chain is reduced to its kind of packets."""
    found = outcomes(chain, packet)
    assert {each.action for each in found} <= {ACCEPT, DROP, UNKNOWN}
    reduced = outcomes(for_packets_like(chain, packet), packet)
    assert {each.action for each in reduced} == {each.action for each in found}
    drops = [each for each in found if each.action == DROP]
    return NEVER if not drops else CERTAIN if len(drops) == len(found) else POSSIBLE


def match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def ct(key: str) -> dict[str, Any]:
    return {"ct": {"key": key}}


DROPS, ACCEPTS = {"drop": None}, {"accept": None}
DPORT, SADDR = payload("tcp", "dport"), payload("ip", "saddr")
NET = {"prefix": {"addr": "10.5.5.0", "len": 24}}

#: The expressions of the rules, and whether a policy "accept" and "drop" drop the packet.
NFT: dict[str, tuple[list[list[dict[str, Any]]], str, str]] = {
    "no rule": ([], NEVER, CERTAIN),
    "drop": ([[DROPS]], CERTAIN, CERTAIN),
    "reject": ([[{"reject": None}]], CERTAIN, CERTAIN),
    "a counter and a log": ([[{"counter": {}}, {"log": {}}]], NEVER, CERTAIN),
    "the port": ([[match(DPORT, 22), DROPS]], CERTAIN, CERTAIN),
    "another port": ([[match(DPORT, 23), DROPS]], NEVER, CERTAIN),
    "not the port": ([[match(DPORT, 22, "!="), DROPS]], NEVER, CERTAIN),
    "ports": ([[match(DPORT, {"set": [80, {"range": [20, 30]}]}), DROPS]], CERTAIN, CERTAIN),
    "the port over UDP": ([[match(payload("udp", "dport"), 22), DROPS]], NEVER, CERTAIN),
    "any protocol's port": ([[match(payload("th", "dport"), 22), DROPS]], CERTAIN, CERTAIN),
    "a client's port": ([[match(payload("tcp", "sport"), 25), DROPS]], NEVER, CERTAIN),
    "some of the clients' ports": (
        [[match(payload("tcp", "sport"), 4000), DROPS]], POSSIBLE, CERTAIN,
    ),
    "the network": ([[match(payload("ip", "daddr"), NET), DROPS]], CERTAIN, CERTAIN),
    "a network of IPv6": (
        [[match(payload("ip6", "daddr"), {"prefix": {"addr": "fd00::", "len": 8}}), DROPS]],
        NEVER, CERTAIN,
    ),
    "IPv4": ([[match(meta("nfproto"), "ipv4"), DROPS]], CERTAIN, CERTAIN),
    "a device": ([[match(meta("oifname"), "br*"), DROPS]], CERTAIN, CERTAIN),
    "established": (
        [[match(ct("state"), ["established", "related"], "in"), ACCEPTS]], NEVER, CERTAIN,
    ),
    "translated": ([[match(ct("status"), "dnat", "in"), ACCEPTS]], NEVER, NEVER),
    "translated, with a mask": (
        [[match({"&": [ct("status"), "dnat"]}, "dnat"), ACCEPTS]], NEVER, NEVER
    ),
    "some clients are banned": ([[match(SADDR, "203.0.113.7"), DROPS]], NEVER, CERTAIN),
    "some clients are accepted": ([[match(SADDR, "203.0.113.7"), ACCEPTS]], NEVER, POSSIBLE),
    "all clients but some": ([[match(SADDR, "203.0.113.7", "!="), DROPS]], POSSIBLE, CERTAIN),
    "too many": ([[{"limit": {"rate": 5, "inv": True}}, DROPS]], NEVER, CERTAIN),
    "not too many": ([[{"limit": {"rate": 5}}, ACCEPTS]], NEVER, POSSIBLE),
    "not understood": ([[match({"exthdr": {}}, 1), DROPS]], POSSIBLE, CERTAIN),
    "a queue": ([[{"queue": {}}]], NEVER, NEVER),
    "of iptables": ([[{"xt": {"type": "match", "name": "x"}}, DROPS]], POSSIBLE, CERTAIN),
    "a mark": ([[match({"&": [meta("mark"), 255]}, 1), DROPS]], NEVER, CERTAIN),
    "a mark is not set": ([[match(meta("mark"), 0), DROPS]], CERTAIN, CERTAIN),
    "a jump": ([[{"jump": {"target": "other"}}], [DROPS]], CERTAIN, CERTAIN),
    "a jump to accept": ([[{"jump": {"target": "good"}}], [DROPS]], NEVER, NEVER),
    "a jump to nothing": ([[{"jump": {"target": "empty"}}], [DROPS]], CERTAIN, CERTAIN),
    "goto nothing": ([[{"goto": {"target": "empty"}}], [DROPS]], NEVER, CERTAIN),
    "return": ([[{"return": None}], [DROPS]], NEVER, CERTAIN),
    "a loop": ([[{"jump": {"target": "loop"}}]], NEVER, NEVER),
    "a verdict map": (
        [[{"vmap": {"key": DPORT, "data": {"set": [[22, DROPS], [23, ACCEPTS]]}}}]],
        CERTAIN, CERTAIN,
    ),
    "a named verdict map": ([[{"vmap": {"key": DPORT, "data": "@ports"}}]], NEVER, NEVER),
    "a named set": ([[match(payload("ip", "daddr"), "@guests"), DROPS]], CERTAIN, CERTAIN),
}  # fmt: skip


def nft_chain(rules: list[list[dict[str, Any]]], policy: str, flags: str = "") -> list[Chain]:
    own = {"family": "inet", "table": "t"}
    chains = {
        "f": rules, "other": [[match(DPORT, 22), DROPS]], "good": [[ACCEPTS]], "empty": [],
        "loop": [[{"jump": {"target": "loop"}}]],
    }  # fmt: skip
    base = {**own, "name": "f", "hook": "forward", "prio": 0, "policy": policy}
    items: list[dict[str, Any]] = [
        {"metainfo": {}},
        {"table": {"family": "inet", "name": "t", **({"flags": flags} if flags else {})}},
        {"chain": base},
        {"map": {**own, "name": "ports", "elem": [[22, ACCEPTS]]}},
        {"set": {**own, "name": "guests", "elem": [{"elem": {"val": "10.5.5.11", "timeout": 9}}]}},
        *(
            {"rule": {**own, "chain": name, "handle": 1, "expr": expr}}
            for name, found in chains.items()
            for expr in found
        ),
    ]
    return list(nft_rules.parse_rules(json.loads(json.dumps({"nftables": items}))))


@pytest.mark.parametrize("name", NFT)
def test_rules_of_nft(name: str) -> None:
    rules, accepting, dropping = NFT[name]
    (chain,) = nft_chain(rules, "accept")
    assert (chain.table, chain.hook, chain.tool) == ("inet t", "forward", "nft")
    assert verdict(chain, PACKET) == accepting
    (chain,) = nft_chain(rules, "drop")
    assert verdict(chain, PACKET) == dropping


def test_a_dormant_table_drops_nothing() -> None:
    assert nft_chain([[DROPS]], "drop", "dormant") == []


def test_a_table_of_a_process_is_known() -> None:
    (chain,) = nft_chain([], "drop", "owner")
    assert chain.is_owned


def test_a_rule_that_sets_a_mark_is_known() -> None:
    (chain,) = nft_chain([[{"mangle": {"key": meta("mark"), "value": 7}}]], "accept")
    assert chain.sets_marks
    assert verdict(chain, PACKET) == NEVER


#: The rules of FORWARD, and whether a policy ACCEPT and DROP drop the packet.
IPTABLES = {
    "": (NEVER, CERTAIN),
    "-j DROP": (CERTAIN, CERTAIN),
    "-o br0 -p tcp -m tcp --dport 22 -j REJECT --reject-with icmp-port-unreachable": (
        CERTAIN, CERTAIN,
    ),
    "-o docker0 -j DROP": (NEVER, CERTAIN),
    "-i eth+ ! -o docker0 -j DROP": (CERTAIN, CERTAIN),
    "-p udp -j DROP": (NEVER, CERTAIN),
    "-d 10.5.5.0/24 -j ACCEPT": (NEVER, NEVER),
    "-s 203.0.113.0/24 -j DROP": (NEVER, CERTAIN),
    "-m set --match-set bad src -j DROP": (NEVER, CERTAIN),
    "-p tcp -m multiport --dports 21:23,80 -j ACCEPT": (NEVER, NEVER),
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT": (NEVER, CERTAIN),
    "-m conntrack --ctstate DNAT -j ACCEPT": (NEVER, NEVER),
    "-m conntrack --ctstate INVALID,DNAT -j DROP": (POSSIBLE, CERTAIN),
    '-m comment --comment "- it is mine" -j DROP': (CERTAIN, CERTAIN),
    "-m limit --limit 3/min -j ACCEPT": (NEVER, POSSIBLE),
    "-m hashlimit --hashlimit-above 9/sec --hashlimit-name x -j DROP": (NEVER, CERTAIN),
    "-m mark --mark 0x4000/0x4000 -j DROP": (NEVER, CERTAIN),
    "-m physdev --physdev-is-bridged -j DROP": (NEVER, CERTAIN),
    "-m addrtype --dst-type LOCAL -j DROP": (NEVER, CERTAIN),
    "-m statistic --mode random --probability 0.5 -j DROP": (POSSIBLE, CERTAIN),
    "-j LOG --log-prefix DROP": (NEVER, CERTAIN),
    "-j OTHER": (CERTAIN, CERTAIN),
    "-i eth9 -j OTHER": (NEVER, CERTAIN),
    "-g EMPTY": (NEVER, CERTAIN),
    "-j NFQUEUE --queue-num 1": (NEVER, NEVER),
}  # fmt: skip


@pytest.mark.parametrize("rule", IPTABLES)
def test_rules_of_iptables(rule: str) -> None:
    for policy, expected in zip(("ACCEPT", "DROP"), IPTABLES[rule], strict=True):
        text = (
            "# a comment\n*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*filter\n"
            f":INPUT ACCEPT [0:0]\n:FORWARD {policy} [3:100]\n:OTHER - [0:0]\n:EMPTY - [0:0]\n"
            + (f"-A FORWARD {rule}\n" if rule else "")
            + "-A OTHER -p tcp -m tcp --dport 22 -j DROP\nCOMMIT\n"
        )
        chains = list(iptables_rules.parse_rules(text, 4, "iptables"))
        assert [(c.table, c.name, c.priority) for c in chains] == [
            ("nat", "PREROUTING", -100), ("filter", "INPUT", 0), ("filter", "FORWARD", 0),
        ]  # fmt: skip
        assert verdict(chains[2], PACKET) == expected, rule


def test_the_rule_that_decides_is_named() -> None:
    text = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -o br0 -j DROP\nCOMMIT\n"
    (chain,) = iptables_rules.parse_rules(text, 4, "iptables")
    (outcome,) = outcomes(chain, PACKET)
    assert (outcome.chain, outcome.rule) == ("FORWARD", "-A FORWARD -o br0 -j DROP")

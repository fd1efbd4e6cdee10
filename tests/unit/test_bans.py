"""Bans: their file, their ends, and how networks within networks become segments."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, ip_network
from itertools import pairwise

import pytest

from cgw_hooks.core import bans
from cgw_hooks.core.rules import bans as rules

pytestmark = pytest.mark.unit

BANS = {("203.0.113.7", ""): 0, ("203.0.113.7", "sshd"): 50, ("2001:db8::/32", "list"): 70}


def test_the_file_holds_what_was_written() -> None:
    assert bans.from_text(bans.to_text(BANS)) == BANS


@pytest.mark.parametrize(
    "text",
    [
        "", "cgw-bans 2\n", "cgw-bans 1", "cgw-bans 1\n203.0.113.7 0 a", "cgw-bans 1\nx\n",
        "cgw-bans 1\n203.0.113.7 -1 a\n", "cgw-bans 1\n203.0.113.7 1 a b\n", "cgw-bans 1\n\n",
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line|end"):
        bans.from_text(text)


def test_a_client_is_denied_until_the_last_of_its_bans_ends() -> None:
    found = {("203.0.113.7", "a"): 50, ("203.0.113.7", "b"): 90, ("203.0.113.8", "a"): 50}
    assert bans.denied(found) == {"203.0.113.7": 90, "203.0.113.8": 50}
    assert bans.denied(found | {("203.0.113.7", "c"): bans.NO_END})["203.0.113.7"] == bans.NO_END
    assert bans.denied(bans.unexpired(found, 60.0)) == {"203.0.113.7": 90}


def test_a_lifted_network_lifts_what_is_within_it() -> None:
    found = dict.fromkeys(
        [("203.0.113.7", ""), ("203.0.113.64/26", ""), ("203.0.112.0/23", ""), ("::1", "")], 0
    )
    gone = bans.lifted(found, [ip_network("203.0.113.0/24")], None)
    assert gone == {("203.0.113.7", ""), ("203.0.113.64/26", "")}
    left = {key: until for key, until in found.items() if key not in gone}
    clients = [ip_network("203.0.113.7/32"), ip_network("::1/128"), ip_network("::2/128")]
    assert bans.still_denied(left, clients) == [
        ("::1", "an administrator"),
        ("203.0.113.7", "203.0.112.0/23"),
    ]
    assert bans.lifted(found, [ip_network("0.0.0.0/0")], "sshd") == set()
    assert bans.lifted(found, [ip_network("0.0.0.0/0")], "") == found.keys() - {("::1", "")}


def test_segments_have_the_latest_end_of_the_networks_around_each_address() -> None:
    chance = random.Random(12)  # noqa: S311  (no secret)
    start = int(IPv4Address("10.0.0.0"))
    for _ in range(200):
        denied = {}
        for _ in range(chance.randint(0, 8)):
            length = chance.randint(25, 31)
            first = start + (chance.randrange(256) >> (32 - length) << (32 - length))
            denied[str(ip_network((first, length)))] = chance.choice([bans.NO_END, 5, 6, 7])
        found = bans.segments(denied, 4)
        for one, following in pairwise(found):
            assert int(one.last) < int(following.first)
        networks = {ip_network(network): until for network, until in denied.items()}
        for number in range(start - 1, start + 257):
            ends = [until for network, until in networks.items() if IPv4Address(number) in network]
            wanted = {bans.NO_END if bans.NO_END in ends else max(ends)} if ends else set()
            assert {s.until for s in found if int(s.first) <= number <= int(s.last)} == wanted


def test_segments_reach_the_last_address() -> None:
    found = bans.segments({"0.0.0.0/0": 5, "255.255.255.0/24": 9, "::/0": 1}, 4)
    assert [(str(s.first), str(s.last), s.until) for s in found] == [
        ("0.0.0.0", "255.255.254.255", 5), ("255.255.255.0", "255.255.255.255", 9)
    ]  # fmt: skip


@pytest.mark.parametrize("client", ["x; drop", "203.0.113.7 }", "203.0.113.7/33", "1.2.3.4/24"])
def test_what_a_damaged_file_names_never_becomes_nft_text(client: str) -> None:
    with pytest.raises(ValueError, match=r"address|network|host bits"):
        rules.restore({client: 0}, 0.0)
    with pytest.raises(ValueError, match=r"address|network|host bits"):
        rules.change({client: 0}, {}, 0.0)


def test_a_change_names_what_differs_alone() -> None:
    text = rules.change({"203.0.113.9": 100, "2001:db8::1": None}, {}, 40.5)
    assert text.splitlines()[1:] == [
        "add element inet cgw_denied denied4 { 203.0.113.9 }",
        "delete element inet cgw_denied denied4 { 203.0.113.9 }",
        "add element inet cgw_denied denied4 { 203.0.113.9 timeout 60s }",
        "add element inet cgw_denied denied6 { 2001:db8::1 }",
        "delete element inet cgw_denied denied6 { 2001:db8::1 }",
    ]

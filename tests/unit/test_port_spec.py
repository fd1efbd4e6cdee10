"""The short form of a published port, as Docker has it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from cgw_hooks.core.parse.port_spec import (
    FreePort,
    ListenPorts,
    parse_duration,
    parse_listen_ports,
    parse_port_spec,
    parse_wish,
)
from tests.unit.builders import is_one_line

pytestmark = pytest.mark.unit

GUEST = (ip_address("10.5.5.202"), ip_address("fd00:5::202"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", ["*:80/tcp -> 10.5.5.202:80", "[::]:80/tcp -> [fd00:5::202]:80"]),
        ("123/udp", ["*:123/udp -> 10.5.5.202:123", "[::]:123/udp -> [fd00:5::202]:123"]),
        ("2202:22", ["*:2202/tcp -> 10.5.5.202:22", "[::]:2202/tcp -> [fd00:5::202]:22"]),
        ("0.0.0.0:2202:22/tcp", ["*:2202/tcp -> 10.5.5.202:22"]),
        ("[::]:2202:22", ["[::]:2202/tcp -> [fd00:5::202]:22"]),
        ("192.168.122.11:2202:22", ["192.168.122.11:2202/tcp -> 10.5.5.202:22"]),
        ("[fd00:122::11]:53:53/udp", ["[fd00:122::11]:53/udp -> [fd00:5::202]:53"]),
        ("0.0.0.0:8000-8009:80", ["*:8000-8009/tcp -> 10.5.5.202:80-89"]),
        ("0.0.0.0:8000-8009:80-89", ["*:8000-8009/tcp -> 10.5.5.202:80-89"]),
        ("0.0.0.0:3868:3868/sctp", ["*:3868/sctp -> 10.5.5.202:3868"]),
        ("0.0.0.0:1-65535:1", ["*:1-65535/tcp -> 10.5.5.202:1-65535"]),
    ],
)
def test_it_says_what_is_published(text: str, expected: list[str]) -> None:
    assert expected == [str(port) for port in parse_port_spec(text).published(GUEST)]


def test_a_range_without_guest_port_keeps_its_ports() -> None:
    forward = parse_port_spec("8000-8009/udp")
    assert (8000, 8009, 8000) == (forward.start, forward.end, forward.to)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("", "port number from 1 to 65535"),
        (":", "port number"),
        (":22", "port number"),
        ("2202:", "port number"),
        ("0:22", "port number"),
        ("65536", "port number"),
        ("2202:22-23", "end the guest ports at 22, or write 22 alone"),
        ("8000-8009:80-88", "end the guest ports at 89, or write 80 alone"),
        ("8000-8009:80-", "port number"),
        (" 2202:22", "port number"),
        ("2202:22 ", "port number"),
        ("+2202:22", "port number"),
        ("٢٢", "port number"),
        ("80-:80", "port number"),
        ("80-79:80", "end the range at port 80"),
        ("1-65535:2", "65535 ports long: end it at guest port 65535"),
        ("2202:22/", "tcp, udp, sctp"),
        ("2202:22/icmp", "tcp, udp, sctp"),
        ("2202:22/TCP", "tcp, udp, sctp"),
        ("2202:22/tcp/udp", "tcp, udp, sctp"),
        ("192.168.122.11:2202", "port number"),
        ("127.0.0.1:2202:22", "others can reach"),
        ("[fe80::1]:2202:22", "others can reach"),
        ("[fd00::1%eth0]:2202:22", "without a scope"),
        ("host:2202:22", "IPv4 or IPv6 address"),
        ("*:2202:22", "IPv4 or IPv6 address"),
        (":2202:22", "IPv4 or IPv6 address"),
        ("fd00::1:2202:22", "an IPv6 address in brackets"),
        ("[fd00::1]:2202", "[listen-address:]port[-end]:guest-port[/protocol]"),
        ("[fd00::1]2202:22", "[listen-address:]port[-end]:guest-port[/protocol]"),
        ("[192.168.122.11]:2202:22", "an IPv6 address in brackets"),
        ("[", "an IPv6 address in brackets"),
        ("1:2:3:4", "[listen-address:]port[-end]:guest-port[/protocol]"),
        ("22; flush ruleset", "port number"),
        ("22\nflush ruleset", "port number"),
    ],
)
def test_anything_else_is_refused_with_its_cure(text: str, cure: str) -> None:
    with pytest.raises(ValueError, match=r"give|write|end") as refused:
        parse_port_spec(text)
    assert cure in str(refused.value)
    assert is_one_line(str(refused.value))


# -- what `cgw publish` and `cgw unpublish` take ---------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":80", FreePort("tcp", None, 80)),
        (":53/udp", FreePort("udp", None, 53)),
        ("192.0.2.1::80", FreePort("tcp", ip_address("192.0.2.1"), 80)),
        ("[fd00::1]::80/sctp", FreePort("sctp", ip_address("fd00::1"), 80)),
        ("8080:80", parse_port_spec("8080:80")),
        ("80", parse_port_spec("80:80")),
        ("192.0.2.1:8000-8009:80/udp", parse_port_spec("192.0.2.1:8000-8009:80/udp")),
    ],
)
def test_without_a_listening_port_any_free_one_is_meant(text: str, expected: object) -> None:
    assert expected == parse_wish(text)


@pytest.mark.parametrize(
    "text", [":", "", "::", ":0", ":80/icmp", "127.0.0.1::80", ":80-89", "x::1"]
)
def test_a_wish_that_cannot_be_understood_says_what_to_give(text: str) -> None:
    with pytest.raises(ValueError, match=r"give|write"):
        parse_wish(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", ListenPorts("tcp", None, 80, 80)),
        ("8000-8009/udp", ListenPorts("udp", None, 8000, 8009)),
        ("192.0.2.1:80", ListenPorts("tcp", ip_address("192.0.2.1"), 80, 80)),
        ("[fd00::1]:80/sctp", ListenPorts("sctp", ip_address("fd00::1"), 80, 80)),
    ],
)
def test_listening_ports_are_named_alone(text: str, expected: ListenPorts) -> None:
    assert expected == parse_listen_ports(text)
    assert parse_listen_ports(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "x", "80:", "9-8", "80/icmp", "8080:80", "127.0.0.1:80"])
def test_listening_ports_that_cannot_be_understood_say_what_to_give(text: str) -> None:
    with pytest.raises(ValueError, match=r"give|end the range"):
        parse_listen_ports(text)


@pytest.mark.parametrize("text", ["8080:80", "8080:80/udp", "192.0.2.1:8080:80"])
def test_ports_as_they_were_published_are_refused_with_the_listening_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"port without a guest port: 8080$"):
        parse_listen_ports(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "2", "h", "0s", "-1h", "1.5h", "2H", "2 h", "٢h", "9" * 5000 + "s", "3651d", "1w"]
)
def test_any_other_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give a duration of at most ten years"):
        parse_duration(text)

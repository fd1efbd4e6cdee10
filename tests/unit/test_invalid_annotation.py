"""Every bad port forward is refused with one line: guest, element, value, cure."""

from __future__ import annotations

import pytest

from cgw_hooks.errors import quoted
from tests.unit.builders import TCP_80, domain, forward, publish, refusal

pytestmark = pytest.mark.unit

GUEST = "10.5.5.202"


def assert_refused(inner: str, element: str, value: str, cure: str, address: str = GUEST) -> None:
    line = refusal(domain(publish(inner, address=address)))
    assert line.startswith(f'guest "web1": {element}')
    assert value in line
    assert cure in line


@pytest.mark.parametrize(
    "bad",
    [
        "0",
        "65536",
        "-1",
        "100000",
        "00000022",
        "22; flush ruleset",
        " 22",
        "22 ",
        "+22",
        "2_2",
        "0x16",
        "22.0",
        "1e3",
        "ssh",
        "٢٢",
        "²",
        "",
        "22&#10;flush ruleset",
    ],
)
@pytest.mark.parametrize("attribute", ["start", "end", "to"])
def test_a_port_is_decimal_digits_from_1_to_65535(attribute: str, bad: str) -> None:
    ports = {"start": "22", attribute: bad}
    text = " ".join(f'{name}="{value}"' for name, value in ports.items())
    shown = quoted(bad.replace("&#10;", " "))  # XML turns the line feed into a blank, or keeps it
    line = refusal(domain(publish(forward(text), address=GUEST)))
    assert line.startswith(f'guest "web1": <range {attribute}> "')
    assert shown in line.replace("\\n", " ")
    assert line.endswith("give a port number from 1 to 65535")


@pytest.mark.parametrize(
    ("inner", "element", "value", "cure"),
    [
        pytest.param(
            forward('start="80" end="79"'), "<range end>", '"79"', "of at least 80", id="reversed"
        ),
        pytest.param(
            forward('start="1" end="1000" to="65000"'),
            "<range to>",
            '"65000"',
            "end it at guest port 65535",
            id="range past 65535",
        ),
        pytest.param(
            TCP_80 + TCP_80, "<range> *:80/tcp", "*:80/tcp", "publish each", id="same port twice"
        ),
        pytest.param(
            forward('start="1" end="100"') + forward('start="50" end="60" to="150"'),
            "<range> *:50-60/tcp",
            "*:1-100/tcp",
            "publish each listening port once",
            id="overlapping ranges",
        ),
        pytest.param(
            forward('start="1" end="100"')
            + forward('start="5"', 'proto="udp"')
            + forward('start="90"', 'proto="tcp" address="192.0.2.1"'),
            "<range> 192.0.2.1:90/tcp",
            "*:1-100/tcp",
            "publish each listening port once",
            id="any address against one",
        ),
        pytest.param(
            forward('start="80"', 'proto="icmp"'),
            "<portForward proto>",
            '"icmp"',
            "tcp, udp, sctp",
            id="unknown protocol",
        ),
        pytest.param(
            forward('start="80"', 'proto="TCP"'),
            "<portForward proto>",
            '"TCP"',
            "tcp, udp, sctp",
            id="protocol in capitals",
        ),
        pytest.param(
            forward('start="80"', ""), "<portForward proto>", "", "give tcp", id="no protocol"
        ),
        pytest.param(
            forward('end="80"'), "<range start>", "", "give the listening port", id="no start"
        ),
        pytest.param('<portForward proto="tcp"/>', "<portForward>", "", "add one", id="no range"),
        pytest.param(
            forward('start="80" until="90"'), "<range>", '"until"', "unknown attr", id="attribute"
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" sources="10.0.0.0/8"'),
            "<portForward>",
            '"sources"',
            "known are: address, limit, max-connections, proto, source, until",
            id="misspelt source limit",
        ),
        pytest.param(
            forward('start="80" cgw:end="90"'), "<range>", "end", "unknown", id="prefixed attribute"
        ),
        pytest.param(
            "<portforward/>", "<publish>", '"portforward"', "<portForward>", id="misspelt element"
        ),
        pytest.param(
            '<o:portForward xmlns:o="urn:other"/>', "<publish>", "urn:other", "unknown", id="other"
        ),
        pytest.param(
            '<portForward proto="tcp"><range start="1"><exclude/></range></portForward>',
            "<range>",
            '"exclude"',
            "known are: none",
            id="element in range",
        ),
        pytest.param("80", "<publish>", '"80"', "remove the text", id="text"),
        pytest.param(
            TCP_80 + "8080:80", "<publish>", '"8080:80"', "remove the text", id="text behind"
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" source="203.0.113.7/24"'),
            "<portForward source>",
            '"203.0.113.7/24"',
            "no host bits set",
            id="source with host bits",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" source=""'),
            "<portForward source>",
            '""',
            "leave the attribute out",
            id="empty source",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" source="fe80::%x;flush/64"'),
            "<portForward source>",
            '"fe80::%x;flush/64"',
            "ADDRESS/LENGTH",
            id="scoped source",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" source="::ffff:10.0.0.0/104"'),
            "<portForward source>",
            '"::ffff:10.0.0.0/104"',
            "give an IPv4 address or network, not",
            id="IPv4 source within IPv6",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" address="192.0.2.1" source="2001:db8::/32"'),
            "<portForward source>",
            '"2001:db8::/32"',
            "of the address's family",
            id="source of another family than the listening address",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" address="2001:db8::1"'),
            '<portForward proto="tcp"><range start="80">',
            GUEST,
            "an address of that family",
            id="listening address of another family than the guest",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" source="2001:db8::/32"'),
            '<portForward proto="tcp"><range start="80">',
            GUEST,
            "an address of that family",
            id="sources of another family than the guest",
        ),
    ],
)
def test_a_bad_port_forward_is_refused(inner: str, element: str, value: str, cure: str) -> None:
    assert_refused(inner, element, value, cure)


@pytest.mark.parametrize(
    "bad",
    [
        *("127.0.0.1", "::1", "224.0.0.1", "ff02::1", "fe80::1", "fd00::1%eth0", "web"),
        *("10.5.5.0/24", "::ffff:192.0.2.1", "::ffff:c000:201", "::192.0.2.1"),
    ],
)
def test_a_bad_listening_address_is_refused(bad: str) -> None:
    inner = forward('start="80"', f'proto="tcp" address="{bad}"')
    assert_refused(inner, "<portForward address>", f'"{bad}"', "give an")


@pytest.mark.parametrize(
    "bad",
    [
        "127.0.0.1",
        "::1",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "fe80::1",
        "fd00::1%eth0",
        "10.5.5.0/24",
        "10.5.5.300",
        "10.5.5.2; flush ruleset".replace(" ", "\u00a0"),
        "010.5.5.2",
    ],
)
def test_a_bad_guest_address_is_refused(bad: str) -> None:
    # A no-break space does not part words.
    assert_refused(TCP_80, "<publish address>", quoted(bad), "give ", address=bad)


def test_two_guest_addresses_of_one_family_are_refused() -> None:
    both = "10.5.5.202 10.5.5.203"
    assert_refused(TCP_80, "<publish address>", f'"{both}"', "one address per", address=both)

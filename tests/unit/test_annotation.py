"""What an annotation means: XML in, published ports as a person reads them out."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

import pytest

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.parse.domain_xml import parse_domain
from tests.unit.builders import (
    NAMESPACE,
    UUID,
    domain,
    forward,
    guest_of,
    interface,
    publish,
    published,
)

pytestmark = pytest.mark.unit

GUEST = "10.5.5.202"
KEY = GuestKey("qemu", UUID)


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        pytest.param(forward('start="80"'), ["*:80/tcp -> 10.5.5.202:80"], id="single port"),
        pytest.param(
            forward('start="2202" to="22"'), ["*:2202/tcp -> 10.5.5.202:22"], id="to another port"
        ),
        pytest.param(
            forward('start="8000" end="8009"'),
            ["*:8000-8009/tcp -> 10.5.5.202:8000-8009"],
            id="range",
        ),
        pytest.param(
            forward('start="8000" end="8009" to="80"'),
            ["*:8000-8009/tcp -> 10.5.5.202:80-89"],
            id="range with offset",
        ),
        pytest.param(
            forward('start="80" end="80"'), ["*:80/tcp -> 10.5.5.202:80"], id="range of one"
        ),
        pytest.param(
            forward('start="1" end="65535"'),
            ["*:1-65535/tcp -> 10.5.5.202:1-65535"],
            id="all ports",
        ),
        pytest.param(
            forward('start="123"', 'proto="udp"'), ["*:123/udp -> 10.5.5.202:123"], id="udp"
        ),
        pytest.param(
            forward('start="3868"', 'proto="sctp"'), ["*:3868/sctp -> 10.5.5.202:3868"], id="sctp"
        ),
        pytest.param(
            forward('start="53"') + forward('start="53"', 'proto="udp"'),
            ["*:53/tcp -> 10.5.5.202:53", "*:53/udp -> 10.5.5.202:53"],
            id="one port of two protocols",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" address="192.168.122.11"'),
            ["192.168.122.11:80/tcp -> 10.5.5.202:80"],
            id="listening address",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" address="192.168.122.11"')
            + forward('start="80" to="81"', 'proto="tcp" address="192.168.122.12"'),
            ["192.168.122.11:80/tcp -> 10.5.5.202:80", "192.168.122.12:80/tcp -> 10.5.5.202:81"],
            id="one port of two listening addresses",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" address="0.0.0.0"'),
            ["*:80/tcp -> 10.5.5.202:80"],
            id="any address, said",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" source="203.0.113.0/24"'),
            ["*:80/tcp -> 10.5.5.202:80 from 203.0.113.0/24"],
            id="source",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" source="203.0.113.7"'),
            ["*:80/tcp -> 10.5.5.202:80 from 203.0.113.7/32"],
            id="one source host",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" source="203.0.113.0/24, 198.51.100.0/24"'),
            ["*:80/tcp -> 10.5.5.202:80 from 198.51.100.0/24, 203.0.113.0/24"],
            id="several sources",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" source="10.0.0.0/8 10.1.0.0/16 10.2.3.4"'),
            ["*:80/tcp -> 10.5.5.202:80 from 10.0.0.0/8"],
            id="overlapping sources are merged",
        ),
        pytest.param(
            forward('start="80"', 'proto="tcp" source="10.0.0.0/9,10.128.0.0/9"'),
            ["*:80/tcp -> 10.5.5.202:80 from 10.0.0.0/8"],
            id="adjacent sources are merged",
        ),
        pytest.param(
            '<cgw:portForward proto="tcp"><cgw:range start="80"/>'
            '<cgw:range start="443" to="8443"/></cgw:portForward>',
            ["*:80/tcp -> 10.5.5.202:80", "*:443/tcp -> 10.5.5.202:8443"],
            id="two ranges of one portForward",
        ),
        pytest.param(
            '<portForward proto="tcp"><range start="80"/></portForward>',
            ["*:80/tcp -> 10.5.5.202:80"],
            id="children without the namespace",
        ),
        pytest.param(
            f'<x:portForward xmlns:x="{NAMESPACE}" proto="tcp"><range start="80"/></x:portForward>',
            ["*:80/tcp -> 10.5.5.202:80"],
            id="children with another prefix",
        ),
        pytest.param(
            '\n  <!-- web -->\n  <cgw:portForward proto="tcp"><!-- http -->\n'
            '<cgw:range start="80"><!-- a --></cgw:range><?pi x?></cgw:portForward><!-- z -->\n',
            ["*:80/tcp -> 10.5.5.202:80"],
            id="comments in between",
        ),
        pytest.param("", [], id="nothing"),
    ],
)
def test_an_annotation_means(inner: str, expected: list[str]) -> None:
    assert expected == published(publish(inner, address=GUEST))


@pytest.mark.parametrize(
    ("address", "attributes", "expected"),
    [
        ("fd00::5", 'proto="tcp"', ["[::]:80/tcp -> [fd00::5]:80"]),
        (
            "fd00::5",
            'proto="udp" address="2001:db8::1"',
            ["[2001:db8::1]:80/udp -> [fd00::5]:80"],
        ),
        (
            "10.5.5.202 fd00::5",
            'proto="tcp"',
            ["*:80/tcp -> 10.5.5.202:80", "[::]:80/tcp -> [fd00::5]:80"],
        ),
        (
            "fd00::5,10.5.5.202",
            'proto="tcp" address="192.168.122.11"',
            ["192.168.122.11:80/tcp -> 10.5.5.202:80"],
        ),
        (
            "10.5.5.202,fd00::5",
            'proto="tcp" address="::"',
            ["[::]:80/tcp -> [fd00::5]:80"],
        ),
        (
            "10.5.5.202,fd00::5",
            'proto="tcp" source="2001:db8::/32"',
            ["[::]:80/tcp -> [fd00::5]:80 from 2001:db8::/32"],
        ),
        (
            "10.5.5.202,fd00::5",
            'proto="tcp" source="2001:db8::/32 203.0.113.0/24"',
            [
                "*:80/tcp -> 10.5.5.202:80 from 203.0.113.0/24",
                "[::]:80/tcp -> [fd00::5]:80 from 2001:db8::/32",
            ],
        ),
        (
            "10.5.5.202",
            'proto="tcp" source="2001:db8::/32 203.0.113.0/24"',
            ["*:80/tcp -> 10.5.5.202:80 from 203.0.113.0/24"],
        ),
    ],
)
def test_each_ip_family_of_the_guest_is_published(
    address: str, attributes: str, expected: list[str]
) -> None:
    assert expected == published(publish(forward('start="80"', attributes), address=address))


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (interface("10.5.5.7"), ["10.5.5.7"]),
        (interface("fe80::1", "fd00::7"), ["fd00::7"]),
        (interface("10.5.5.7") + interface("10.6.6.7", "fd00::7"), ["10.5.5.7", "fd00::7"]),
        (interface(), []),
    ],
)
def test_the_address_is_the_interfaces_where_the_annotation_has_none(
    devices: str, expected: list[str]
) -> None:
    annotation = parse_domain(KEY, "web1", domain(publish(forward('start="80"')), devices))
    assert annotation is not None
    assert expected == [str(address) for address in annotation.addresses]


def test_the_annotations_address_comes_before_the_interfaces() -> None:
    annotation = publish(forward('start="80"'), address=GUEST)
    assert ["*:80/tcp -> 10.5.5.202:80"] == published(annotation, interface("10.5.5.7"))


def test_ports_of_an_unknown_address_are_known_all_the_same() -> None:
    assert ["*:80/tcp -> ?:80"] == published(publish(forward('start="80"')))


def test_publish_alone_is_read_as_virsh_metadata_prints_it() -> None:
    # libvirt takes its namespace off again (virXMLExtractNamespaceXML).
    printed = (
        b'<publish address="10.5.5.202">\n  <portForward proto="tcp">\n'
        b'    <range start="2202" to="22"/>\n  </portForward>\n</publish>\n'
    )
    assert ["*:2202/tcp -> 10.5.5.202:22"] == [str(port) for port in guest_of(printed).ports]


def test_publish_alone_is_read_with_its_namespace() -> None:
    alone = publish(forward('start="80"'), address=GUEST).encode()
    assert ["*:80/tcp -> 10.5.5.202:80"] == [str(port) for port in guest_of(alone).ports]


def test_a_guest_without_annotation_publishes_nothing() -> None:
    others = '<app:x xmlns:app="http://example.org/"><publish/></app:x>'
    assert parse_domain(KEY, "web1", domain(others)) is None


def test_interfaces_are_read_with_mac_network_and_bridge() -> None:
    devices = (
        '<interface type="network"><mac address="52:54:00:AA:BB:0C"/>'
        '<source network="default" bridge="virbr0"/></interface>'
        '<interface type="bridge"><source bridge="guestbr0"/></interface>'
    )
    annotation = parse_domain(KEY, "web1", domain(publish(""), devices))
    assert annotation is not None
    first, second = annotation.interfaces
    assert ("52:54:00:aa:bb:0c", "default", "virbr0") == (first.mac, first.network, first.bridge)
    assert ("", None, "guestbr0") == (second.mac, second.network, second.bridge)
    assert ("virbr0",) == annotation.guest(()).network_bridges


@pytest.mark.parametrize("bridge", ["../../etc", 'a"; flush ruleset', "", "a" * 16, "."])
def test_a_bridge_that_no_kernel_names_so_is_not_taken(bridge: str) -> None:
    devices = f'<interface><source network="n" bridge={quoteattr(bridge)}/></interface>'
    annotation = parse_domain(KEY, "web1", domain(publish(""), devices))
    assert annotation is not None
    assert () == annotation.guest(()).network_bridges


def test_a_guest_is_filed_under_its_driver_and_uuid() -> None:
    assert f"qemu-{UUID}" == str(guest_of(domain(publish("", address=GUEST))).key)

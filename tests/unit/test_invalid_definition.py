"""Bad XML, hostile names and ports that this node does not publish: one line each."""

from __future__ import annotations

import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.core.parse.domain_xml import parse_domain
from cgw_hooks.core.policy import Route, refuse_unpublishable
from cgw_hooks.core.published_port import Address
from cgw_hooks.errors import InvalidAnnotation
from tests.unit.builders import (
    CLUSTER,
    TCP_80,
    UUID,
    domain,
    forward,
    guest_of,
    is_one_line,
    publish,
    published,
    refusal,
)

pytestmark = pytest.mark.unit

GUEST = "10.5.5.202"
KEY = GuestKey("qemu", UUID)


@pytest.mark.parametrize("cut", [0, 1, 40, 200, -3])
def test_truncated_xml_is_refused(cut: int) -> None:
    assert "<domain>: the XML cannot be read" in refusal(domain(publish(TCP_80))[:cut])


def test_xml_beyond_what_libvirt_takes_is_refused_unread() -> None:
    # Only the ends are well-formed: a reader of the rest would say so.
    xml = domain(publish(TCP_80) + "<x>" + "&" * (8 << 20))
    assert (
        f'guest "web1": <domain> is {len(xml)} bytes long; '
        "define the guest again with at most 8388608 bytes" == refusal(xml)
    )


def test_xml_of_nearly_that_length_is_read() -> None:
    filler = f"<x>{'a' * 8_000_000}</x>"
    assert ["*:80/tcp -> ?:80"] == published(publish(TCP_80) + filler)


def test_an_entity_bomb_is_refused_in_sane_time() -> None:
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE domain [<!ENTITY e0 "ha">{lines}]>'.encode()
    begin = time.monotonic()
    line = refusal(bomb + domain(publish(forward('start="&e11;"'))))
    assert "<!DOCTYPE>" in line or "<domain>" in line
    assert time.monotonic() - begin < 20


def test_an_external_entity_is_refused_and_its_file_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("80", encoding="ascii")
    doctype = f'<!DOCTYPE domain [<!ENTITY e SYSTEM "file://{secret}">]>'.encode()
    line = refusal(doctype + domain(publish("&e;" + TCP_80, address=GUEST)))
    assert (
        'guest "web1": <!DOCTYPE> is not allowed; remove the document type and its entities' == line
    )


def test_an_external_document_type_is_refused() -> None:
    doctype = b'<!DOCTYPE domain SYSTEM "http://192.0.2.1/x.dtd">'
    assert "<!DOCTYPE>" in refusal(doctype + domain(publish(TCP_80, address=GUEST)))


@pytest.mark.parametrize("wrap", [lambda xml: xml, lambda xml: domain(xml.decode())])
def test_another_version_of_the_namespace_is_refused(wrap: object) -> None:
    xml = publish(TCP_80, address=GUEST).replace("urn:cgw-hooks:1", "urn:cgw-hooks:2").encode()
    assert callable(wrap)
    line = refusal(wrap(xml))
    assert (
        'guest "web1": <metadata>: "{urn:cgw-hooks:2}publish" is not known; '
        'write <publish xmlns="urn:cgw-hooks:1">' == line
    )


def test_another_element_of_the_namespace_is_refused() -> None:
    metadata = publish("").replace("cgw:publish", "cgw:published")
    assert '"{urn:cgw-hooks:1}published" is not known; write <publish' in refusal(domain(metadata))


def test_a_second_publish_is_refused() -> None:
    line = refusal(domain(publish(TCP_80) + publish("")))
    assert 'guest "web1": <publish> occurs 2 times; keep one of them' == line


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("""we"b'1""", """"we"b'1\""""),
        ("a\nb\r\x00c", r'"a\nb\r\x00c"'),
        ("\x1b[2J\x1b]0;x\x07", r'"\x1b[2J\x1b]0;x\x07"'),
        ("wéb-网-🦊", '"wéb-网-🦊"'),
        ("\u202egnp.exe", r'"\u202egnp.exe"'),
        ("\udcff", r'"\udcff"'),
        ("x" * 200, '"' + "x" * 80 + '..."'),
    ],
)
def test_a_hostile_guest_name_is_shown_on_one_line(name: str, shown: str) -> None:
    line = refusal(domain(publish(forward('start="0"'))), name)
    assert (
        f'guest {shown}: <range start> "0" cannot be used; give a port number from 1 to 65535'
        == line
    )


def test_a_hostile_value_is_shown_on_one_line() -> None:
    line = refusal(domain(publish(forward(f'start="{"&#10;&#9;9" * 100}"'))))
    assert line.count("9") < 90
    assert r'"\n\t9\n\t9' in line


def through_a_router(_address: Address) -> Route:
    return Route("unicast", "eth0", ip_address("192.0.2.1"))


def on_the_link(_address: Address) -> Route:
    return Route("unicast", "virbr0")


@pytest.mark.parametrize(
    ("route", "bridges", "what"),
    [
        (None, (), "this node has no route to it"),
        (Route("unreachable"), (), "this node has no route to it"),
        (Route("local", "lo"), (), "that is a local address of this node"),
        (Route("broadcast", "virbr0"), (), "that is a broadcast address of this node"),
        (
            Route("unicast", "virbr1"),
            ("virbr0",),
            'it lies behind "virbr1", where the guest has no interface (the guest is on virbr0)',
        ),
    ],
)
def test_an_address_that_is_not_on_a_link_of_the_guest_is_refused(
    route: Route | None, bridges: tuple[str, ...], what: str
) -> None:
    guest = guest_of(domain(publish(TCP_80, address="192.168.122.10")))
    with pytest.raises(InvalidAnnotation) as caught:
        refuse_unpublishable(guest, NodeConfig(), lambda _: route, bridges)
    assert f'guest "web1": <publish address="192.168.122.10">: {what}; give' in str(caught.value)


@pytest.mark.parametrize("bridges", [(), ("virbr0",), ("virbr0", "virbr9")])
def test_an_address_on_a_link_of_the_guest_is_taken(bridges: tuple[str, ...]) -> None:
    guest = guest_of(domain(publish(TCP_80, address="192.168.122.10")))
    refuse_unpublishable(guest, NodeConfig(), on_the_link, bridges)
    refuse_unpublishable(guest, CLUSTER, on_the_link, bridges)  # a guest network is no limit


@pytest.mark.parametrize(
    ("policy", "attributes", "told"),
    [
        ('listen-addresses = "192.0.2.0/24"', "", "<portForward address> *: this node publishes"),
        ('listen-addresses = "192.0.2.0/24"', ' address="192.0.3.1"', "192.0.3.1: this node"),
        ('listen-addresses = "192.0.2.0/24"', ' address="192.0.2.1"', ""),
        ('listen-addresses = ["0.0.0.0/0"]', "", ""),
        ('sources = "10.0.0.0/8"', "", "to clients of 10.0.0.0/8 (policy.sources)"),
        ('sources = "10.0.0.0/8"', ' source="10.0.0.0/7"', "to clients of 10.0.0.0/8"),
        ('sources = ["10.0.0.0/8", "fd00::/8"]', ' source="10.1.0.0/16"', ""),
    ],
)
def test_the_policy_limits_listening_addresses_and_sources(
    policy: str, attributes: str, told: str
) -> None:
    config = CLUSTER._replace(policy=parse_config(f"[policy]\n{policy}").policy)
    inner = forward('start="80"', f'proto="tcp"{attributes}')
    guest = guest_of(domain(publish(inner, address=GUEST)))
    if not told:
        refuse_unpublishable(guest, config, on_the_link)
        return
    with pytest.raises(InvalidAnnotation) as caught:
        refuse_unpublishable(guest, config, on_the_link)
    assert is_one_line(str(caught.value))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("10.6.6.2", "this node reaches it only through a router (192.0.2.1)"),
        ("fd00::2", "this node reaches it only through a router (192.0.2.1)"),
        ("169.254.169.254", "link-local addresses are not for guests"),
        ("10.5.5.254", "the gateway's address"),
        ("10.5.5.251", "the node's own address"),
        ("10.5.5.0", "the subnet's own address"),
        ("10.5.5.255", "the subnet's broadcast address"),
    ],
)
def test_an_address_that_no_guest_has_here_is_refused(address: str, what: str) -> None:
    guest = guest_of(domain(publish(TCP_80, address=address)))
    with pytest.raises(InvalidAnnotation) as caught:
        refuse_unpublishable(guest, CLUSTER, through_a_router)
    assert is_one_line(str(caught.value))
    assert f'guest "web1": <publish address="{address}">: ' in str(caught.value)
    assert what in str(caught.value)
    assert "; give the" in str(caught.value)


@pytest.mark.parametrize(
    ("allowed", "ports", "shown"),
    [
        ('["80"]', 'start="81"', "80-80"),
        ('["1000-2000"]', 'start="1990" end="2001"', "1000-2000"),
        ('["80", "443"]', 'start="80" end="443"', "80-80, 443-443"),
        ("[]", 'start="80"', "(none)"),
    ],
)
def test_a_port_outside_the_nodes_policy_is_refused(allowed: str, ports: str, shown: str) -> None:
    config = parse_config(f"[policy]\nlisten-ports = {allowed}")
    guest = guest_of(domain(publish(forward(ports), address=GUEST)))
    with pytest.raises(InvalidAnnotation) as caught:
        refuse_unpublishable(guest, config, on_the_link)
    assert is_one_line(str(caught.value))
    assert 'guest "web1": <range start="' in str(caught.value)
    assert f"this node publishes ports {shown} (policy.listen-ports)" in str(caught.value)


def test_what_the_node_allows_is_not_refused() -> None:
    config = CLUSTER._replace(policy=parse_config('[policy]\nlisten-ports = "80-90"').policy)
    guest = guest_of(domain(publish(forward('start="80" end="90"'), address=GUEST)))
    refuse_unpublishable(guest, config, on_the_link)
    assert [(80, 90)] == [(port.start, port.end) for port in guest.ports]


def test_xml_without_annotation_is_refused_by_nobody() -> None:
    assert parse_domain(KEY, "web1", domain("<description>22; flush</description>")) is None

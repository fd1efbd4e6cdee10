"""Changes to an annotation: XML text in, XML text out."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from cgw_hooks.core import annotation_edit
from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.parse import fields
from cgw_hooks.core.parse.domain_xml import parse_domain
from cgw_hooks.core.parse.port_spec import parse_listen_ports, parse_port_spec
from cgw_hooks.errors import InvalidAnnotation, PortConflict
from tests.unit.builders import domain, guest_of, interface, is_one_line, publish

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.unit

NOON = fields.parse_time("2026-11-24T12:00:00Z")
ONE = '<publish><portForward proto="tcp"><range start="8080" to="80"/></portForward></publish>'


def added(xml: str | None, *specs: str, until: int | None = None, address: str = "") -> str:
    forwards = [parse_port_spec(spec)._replace(until=until) for spec in specs]
    addresses = [ip_address(address)] if address else []
    return annotation_edit.add("web1", xml, forwards, NOON, addresses)


def removed(xml: str, *specs: str) -> str | None:
    text, missing = annotation_edit.remove("web1", xml, map(parse_listen_ports, specs))
    assert missing == []
    return text


def meaning(xml: str) -> list[str]:
    """What an annotation says, in Docker's short form."""
    found = parse_domain(GuestKey("qemu", "u"), "web1", xml.encode())
    assert found
    return [annotation_edit.in_words(forward) for forward in found.forwards]


def test_the_first_port_makes_the_annotation() -> None:
    assert added(None, "8080:80", "[fd00::1]:53:5353/udp") == (
        '<publish>\n  <portForward proto="tcp"><range start="8080" to="80"/></portForward>\n'
        '  <portForward proto="udp" address="fd00::1"><range start="53" to="5353"/></portForward>\n'
        "</publish>"
    )


def test_attributes_are_written_as_the_hook_reads_them() -> None:
    forward = parse_port_spec("192.0.2.1:8000-8009:80/sctp")
    forward = forward._replace(
        sources=fields.parse_networks("10.0.0.0/8,192.0.2.7"), until=NOON + 1
    )
    text = annotation_edit.add("web1", None, [forward], NOON)
    found = parse_domain(GuestKey("qemu", "u"), "web1", text.encode())
    assert found
    assert found.forwards == (forward,)
    assert 'until="2026-11-24T12:00:01Z"' in text


@pytest.mark.parametrize(
    "xml",
    [
        (
            '<publish address="10.5.5.1"><!-- a --><portForward proto="tcp" source="10.0.0.0/8">'
            '<range start="22"/><!-- b --></portForward><!-- c --></publish>'
        ),
        (
            '<cgw:publish xmlns:cgw="urn:cgw-hooks:1">\n  <cgw:portForward proto="tcp">\n'
            '    <cgw:range start="22" end="29"/>\n  </cgw:portForward>\n</cgw:publish>'
        ),
        (
            '<publish xmlns="urn:cgw-hooks:1"><portForward proto="tcp"><range start="22"/>'
            "</portForward></publish>"
        ),
        '<!-- Ann --><publish><portForward proto="tcp"><range start="22"/></portForward></publish>',
    ],
)
def test_what_else_is_there_stays_as_it_is(xml: str) -> None:
    more = added(xml, "8080:80")
    assert meaning(more) == [*meaning(xml), "8080:80/tcp"]
    assert removed(more, "8080") == xml


def test_a_prefix_of_the_namespace_is_used_again() -> None:
    xml = '<cgw:publish xmlns:cgw="urn:cgw-hooks:1"/>'
    assert '<cgw:portForward proto="tcp"><cgw:range start="8080" to="80"/>' in added(xml, "8080:80")


def test_a_port_that_is_there_is_not_added_again() -> None:
    assert added(ONE, "8080:80") == ONE


@pytest.mark.parametrize("spec", ["8080:81", "8079-8081:79", "192.0.2.1:8080:80", "8080-8081:80"])
def test_a_port_that_is_there_in_another_form_is_refused(spec: str) -> None:
    with pytest.raises(PortConflict) as caught:
        added(ONE, spec)
    assert "the guest publishes 8080:80/tcp already; unpublish that first" in str(caught.value)
    assert is_one_line(str(caught.value))


@pytest.mark.parametrize("spec", ["8080:80/udp", "8081:80", "80:8080"])
def test_another_protocol_or_port_is_another_port(spec: str) -> None:
    assert len(meaning(added(ONE, spec))) == 2


def test_the_guests_address_is_written_once() -> None:
    xml = added(None, "8080:80", address="10.5.5.11")
    assert 'address="10.5.5.11"' in xml
    assert 'address="10.5.5.11"' in added(xml, "8081:80")


def test_the_last_port_takes_the_annotation_along_but_not_an_address() -> None:
    assert removed(ONE, "8080") is None
    kept = removed(added(None, "8080:80", address="10.5.5.11"), "8080")
    assert kept == '<publish address="10.5.5.11"/>'


@pytest.mark.parametrize(
    ("spec", "left"),
    [
        ("8000", ["8001-8009:81/tcp"]),
        ("8009", ["8000-8008:80/tcp"]),
        ("8003-8004", ["8000-8002:80/tcp", "8005-8009:85/tcp"]),
        ("8001-8008", ["8000:80/tcp", "8009:89/tcp"]),
        ("8000-8009", []),
    ],
)
def test_a_part_of_a_range_can_be_removed(spec: str, left: list[str]) -> None:
    xml = added(None, "22:22", "8000-8009:80")
    text = removed(xml, spec)
    assert text
    assert meaning(text) == ["22:22/tcp", *left]


def test_neighbouring_ports_can_be_removed_as_one_range() -> None:
    xml = added(None, "8000:80", "8001-8003:90", "22:22")
    text = removed(xml, "8000-8003")
    assert text
    assert meaning(text) == ["22:22/tcp"]


@pytest.mark.parametrize("spec", ["8081", "8080/udp", "8079-8080", "192.0.2.1:8080"])
def test_a_port_that_is_not_there_is_told(spec: str) -> None:
    wanted = parse_listen_ports(spec)
    assert annotation_edit.remove("web1", ONE, [wanted])[1] == [wanted]


def test_a_listening_address_limits_what_is_removed() -> None:
    xml = added(None, "192.0.2.1:80:80", "192.0.2.2:80:81")
    assert removed(xml, "80") is None
    text = removed(xml, "192.0.2.2:80")
    assert text
    assert meaning(text) == ["192.0.2.1:80:80/tcp"]


# -- for a time ------------------------------------------------------------------------------


def test_what_has_expired_is_removed_with_the_next_change() -> None:
    xml = added(None, "8080:80", until=NOON)
    assert meaning(added(xml, "8080:81")) == ["8080:81/tcp"]
    assert annotation_edit.remove_expired("web1", xml, NOON) is None
    assert annotation_edit.remove_expired("web1", xml, NOON - 1) == xml


def test_a_time_can_be_changed_and_ended() -> None:
    xml = added(None, "8080:80", "8081:80", until=NOON + 60)
    later = added(xml, "8080:80", until=NOON + 120)
    assert (later.count("12:01:00Z"), later.count("12:02:00Z")) == (1, 1)
    assert added(later, "8080:80").count("until") == 1


def test_the_other_ranges_of_one_element_keep_their_time() -> None:
    xml = (
        '<publish><portForward proto="tcp"><range start="1"/><range start="2"/></portForward>'
        "</publish>"
    )
    text = added(xml, "2:2", until=NOON + 60)
    assert meaning(text) == ["1:1/tcp", "2:2/tcp"]
    assert text.count("until") == 1
    assert annotation_edit.remove_expired("web1", text, NOON + 60) == xml.replace(
        '<range start="2"/>', ""
    )


# -- untrusted -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "xml",
    [
        "<publish>",
        '<publish><portForward proto="icmp"><range start="1"/></portForward></publish>',
        '<publish><portForward proto="tcp" sources="x"><range start="1"/></portForward></publish>',
        "<publish>text</publish>",
        "<other/>",
        '<publish xmlns="urn:cgw-hooks:2"/>',
        '<!DOCTYPE publish [<!ENTITY x SYSTEM "file:///etc/passwd">]><publish>&x;</publish>',
    ],
)
def test_an_annotation_that_the_hook_would_refuse_is_not_changed(xml: str) -> None:
    changes: list[Callable[[], object]] = [
        lambda: added(xml, "8080:80"),
        lambda: removed(xml, "8080"),
        lambda: annotation_edit.remove_expired("web1", xml, NOON),
    ]
    for change in changes:
        with pytest.raises(InvalidAnnotation) as caught:
            change()
        assert is_one_line(str(caught.value))


# -- the whole definition --------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata", ["", "<a:b xmlns:a='urn:a'/>", publish("", address="10.5.5.9")]
)
def test_a_definition_reads_as_if_it_had_the_other_annotation(metadata: str) -> None:
    xml = annotation_edit.definition_with(
        "web1", domain(metadata, interface("10.5.5.202")), added(None, "8080:80")
    )
    assert [str(port) for port in guest_of(xml).ports] == ["*:8080/tcp -> 10.5.5.202:80"]
    without = annotation_edit.definition_with("web1", xml, None)
    assert parse_domain(GuestKey("qemu", "u"), "web1", without) is None
    assert (b"urn:a" in without) == ("urn:a" in metadata)


def test_a_definition_without_metadata_gets_one() -> None:
    bare = domain("").replace(b"<metadata></metadata>", b"")
    xml = annotation_edit.definition_with(
        "web1", bare, added(None, "8080:80", address="10.5.5.202")
    )
    assert [str(port) for port in guest_of(xml).ports] == ["*:8080/tcp -> 10.5.5.202:80"]

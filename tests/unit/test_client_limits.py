"""Limits for one client: how they are written, kept, and become nft text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cgw_hooks.core import annotation_edit, registry_value
from cgw_hooks.core.annotation import MAX_LIMITS
from cgw_hooks.core.guest import Guest, GuestKey
from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.core.parse.domain_xml import parse_domain
from cgw_hooks.core.parse.port_spec import FreePort, parse_listen_ports, parse_port_spec, parse_wish
from cgw_hooks.core.parse.vif import configured_vifs
from cgw_hooks.core.published_port import ClientLimits, no_longer_translated
from cgw_hooks.core.record import Contents, Record, State, from_json, to_json
from cgw_hooks.core.rules import limits as rules
from cgw_hooks.core.rules import table
from cgw_hooks.errors import InvalidAnnotation, RegistryError
from tests.unit.builders import domain, forward, guest_of, port, publish, refusal

pytestmark = pytest.mark.unit

RATE, AT_ONCE = ClientLimits(10, "second"), ClientLimits(connections=20)
BOTH = ClientLimits(10, "second", 20)
UUID = "0e1f2a3b-4c5d-4e6f-8a9b-0c1d2e3f4a5b"


def limited(attributes: str) -> bytes:
    inner = forward('start="80"', f'proto="tcp" {attributes}')
    return domain(publish(inner, address="10.5.5.2"))


def parse_and_publish(xml: bytes) -> Guest:
    """The guest of the XML. The schema cannot count what is different."""
    annotation = parse_domain(GuestKey("qemu", UUID), "web1", xml)
    assert annotation
    return annotation.guest(annotation.addresses)


@pytest.mark.parametrize(
    ("attributes", "limits"),
    [
        ('limit="10/second"', RATE),
        ('max-connections="20"', AT_ONCE),
        ('limit="10/second" max-connections="20"', BOTH),
        ('limit="1000000/hour"', ClientLimits(1_000_000, "hour")),
        ('limit="0001/minute"', ClientLimits(1, "minute")),
        ('max-connections="65535"', ClientLimits(connections=65535)),
        ("", None),
    ],
)
def test_an_annotation_limits_each_client(attributes: str, limits: ClientLimits | None) -> None:
    (found,) = guest_of(limited(attributes)).ports
    assert found.limits == limits


@pytest.mark.parametrize(
    "attributes",
    [
        'limit=""', 'limit="0/second"', 'limit="10"', 'limit="10/day"', 'limit="1000001/second"',
        'limit="-1/second"', 'limit=" 1/second"', 'limit="1/second drop"', 'limit="1.5/second"',
        'limit="٣/second"', 'limit="00000001/second"', 'max-connections="0"', 'max-connections=""',
        'max-connections="65536"', 'max-connections="+5"', 'max-connections="5; accept"',
    ],
)  # fmt: skip
def test_any_other_limit_is_refused_with_its_cure(attributes: str) -> None:
    line = refusal(limited(attributes))
    assert attributes.partition("=")[0] in line
    assert "give a number from 1 to " in line


def test_a_guest_may_have_some_different_limits_and_no_more() -> None:
    def text(count: int) -> bytes:
        forwards = (
            forward(f'start="{8000 + n}"', f'proto="tcp" limit="{n % count + 1}/second"')
            for n in range(100)
        )
        return domain(publish("".join(forwards), address="10.5.5.2"))

    assert len(guest_of(text(MAX_LIMITS)).ports) == 100
    with pytest.raises(InvalidAnnotation, match=f"has {MAX_LIMITS + 1} different limits"):
        parse_and_publish(text(MAX_LIMITS + 1))


@pytest.mark.parametrize(
    ("spec", "limits"),
    [
        ("2202:22+limit=10/second", RATE),
        ("[fd00::1]:2202:22/udp+max-connections=20", AT_ONCE),
        ("8000-8009/tcp+max-connections=20+limit=10/second", BOTH),
    ],
)
def test_the_short_form_has_limits_too(spec: str, limits: ClientLimits) -> None:
    assert parse_port_spec(spec).limits == limits
    assert parse_port_spec(spec)._replace(limits=None) == parse_port_spec(spec.partition("+")[0])
    assert parse_wish(spec) == parse_port_spec(spec)


@pytest.mark.parametrize(
    "spec",
    [
        "80+", "80+limit", "80+limit=", "80+limit=x", "80+rate=1/second", "80+max-connections=0",
        "80+limit=1/second+limit=2/second", "80+limit=1/second+", "+limit=1/second",
        "80+source=10.0.0.0/8",
    ],
)  # fmt: skip
def test_a_short_form_with_other_options_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"give|write"):
        parse_port_spec(spec)
    with pytest.raises(ValueError, match=r"give"):
        parse_listen_ports("80+limit=10/second")


def test_a_vif_of_xl_has_limits() -> None:
    (vif,) = configured_vifs("web1", ["bridge=guestbr0,gatewaydev=cgw 80:80/tcp+limit=10/second"])
    assert vif.own_words is not None
    (found,) = vif.annotation(vif.own_words, "gatewaydev").forwards
    assert found.limits == RATE


def test_a_port_that_is_picked_has_limits() -> None:
    assert parse_wish(":80/udp+limit=10/second") == FreePort("udp", None, 80, RATE)


@pytest.mark.parametrize("limits", [RATE, AT_ONCE, BOTH])
def test_what_is_written_into_an_annotation_is_read_from_it(limits: ClientLimits) -> None:
    added = parse_port_spec("8080:80")._replace(limits=limits)
    text = annotation_edit.add("web1", None, [added], 0.0)
    inside = text.replace("<publish>", '<publish xmlns="urn:cgw-hooks:1" address="10.5.5.2">')
    (found,) = guest_of(domain(inside)).ports
    assert found.limits == limits
    assert annotation_edit.add("web1", text, [added], 0.0) == text


@pytest.mark.parametrize("limits", [RATE, AT_ONCE, BOTH])
def test_a_record_and_a_value_of_the_registry_keep_the_limits(limits: ClientLimits) -> None:
    ports = (port(80, limits=limits), port(81))
    record = Record(Guest(GuestKey("qemu", UUID), "web1", ports, UUID), State.PUBLISHED, 1.0)
    assert from_json(to_json(record)) == record
    assert registry_value.guest(UUID, registry_value.value("web1", ports)).ports == ports


def test_an_older_cgw_finds_another_version_if_there_are_limits_and_only_then() -> None:
    def record(*ports: Any) -> dict[str, Any]:
        guest = Guest(GuestKey("qemu", UUID), "web1", ports, UUID)
        found: dict[str, Any] = json.loads(to_json(Record(guest, State.PUBLISHED, 1.0)))
        return found

    assert record(port(80))["version"] == 2
    assert record(port(80), port(81, limits=RATE))["version"] == 3
    values = [registry_value.value("web1", [port(80, limits=found)]) for found in (None, RATE)]
    assert [json.loads(value)["version"] for value in values] == [1, 2]
    assert all(len(listed) == 7 for listed in record(port(80))["ports"])


@pytest.mark.parametrize(
    "wrong", [["10/second; drop", ""], ["", "5 }"], ["10/second"], "10", [5, 5]]
)
def test_limits_that_no_annotation_gives_are_not_read(wrong: Any) -> None:
    value = json.loads(registry_value.value("web1", [port(80, limits=BOTH)]))
    value["ports"][0][-1] = wrong
    with pytest.raises(RegistryError):
        registry_value.guest(UUID, json.dumps(value))


def test_ports_with_the_same_limit_share_one_chain() -> None:
    contents = Contents([port(80, limits=RATE), port((90, 99), limits=RATE), port(81, limits=BOTH)])
    text = table.restore(NodeConfig(), contents)
    assert text.count("add chain inet cgw limit_") == 2
    assert "add element inet cgw limited4 { 6 . 80 : jump limit_10_second, " in text
    assert "6 . 90-99 : jump limit_10_second, 6 . 81 : jump limit_10_second_20 }" in text


def test_different_limits_never_share_a_name() -> None:
    found = [RATE, AT_ONCE, BOTH, ClientLimits(1, "second", 10), ClientLimits(10, "minute")]
    assert len({rules.chain(limits) for limits in found}) == len(found)
    texts = [text for limits in found for text in rules.commands(limits) if "add set" in text]
    assert len({text.split()[4] for text in texts}) == len(texts)


def test_what_no_port_needs_is_deleted() -> None:
    names = ["limit_10_second_rate4", "limit_10_second_20_rate4", "hairpin"]
    text = rules.removal_of_unused([port(80, limits=RATE)], ["limit_20", "publish"], names)
    assert text.splitlines() == [
        "delete chain inet cgw limit_20",
        "delete set inet cgw limit_10_second_20_rate4",
    ]


def test_a_port_with_other_limits_is_the_same_translation() -> None:
    assert no_longer_translated([port(80, limits=RATE)], [port(80, limits=BOTH)]) == []
    assert no_longer_translated([port(80), port(80, 22, limits=RATE)], [port(80)]) == [
        port(80, 22, limits=RATE)
    ]

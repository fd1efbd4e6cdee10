"""xl.cfg as xl reads it, and nothing of it evaluated."""

from __future__ import annotations

import pytest

from cgw_hooks.core.parse.vif import configured_vifs, latest, running_vifs
from cgw_hooks.core.parse.xl_cfg import parse_xl_config
from cgw_hooks.errors import InvalidAnnotation
from cgw_hooks.host.xenstore import parse_listing

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ('name = "web1"', {"name": "web1"}),
        ("name='web1'; memory = 0x60 # MiB", {"name": "web1", "memory": "0x60"}),
        ('cgw_publish = [ "2202:22/tcp", "123/udp" ]', {"cgw_publish": ["2202:22/tcp", "123/udp"]}),
        ('v = [\n "a",\n\n "b",\n]\nn = 1\n', {"v": ["a", "b"], "n": "1"}),
        ("v = []", {"v": []}),
        ('n = "a"\nn = "b"', {"n": "b"}),
        ('v = ["a"]\nv += ["b"]', {"v": ["a", "b"]}),
        ('n = "a#b;c=\\"d\\" \\x41\\102\\n"', {"n": 'a#b;c="d" AB\n'}),
        ("# n = 1\n\r\n", {}),
    ],
)
def test_settings(text: str, expected: dict[str, object]) -> None:
    assert expected == parse_xl_config(text)


@pytest.mark.parametrize(
    "text",
    ['n = "a', "n = [1", "n = ", "n", "= 1", 'n = open("/etc/shadow")', "n = [1 2]", "n = 1 m = 2"],
)
def test_what_xl_would_not_read_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        parse_xl_config("first = 1\n" + text)


LISTING = """\
/local/domain/0/backend/vif/3/0/ip = "10.5.5.201 fd00:5::201"
/local/domain/0/backend/vif/3/0/gatewaydev = "cgw 2202:22/tcp"
/local/domain/0/backend/vif/4/0/ip = "10.5.5.201"
/local/domain/3/name = "web1"
/local/domain/3/vm = "/vm/u-1"
/local/domain/4/name = "web1--incoming"
/local/domain/4/vm = "/vm/u-1"
/local/domain/4/data = "x\\nlocal \\x22 = \\x22"
"""


def test_of_a_guest_that_migrates_to_its_own_host_the_new_vif_counts() -> None:
    vifs = running_vifs(parse_listing(LISTING))
    assert ["vif3.0", "vif4.0"] == [vif.name for vif in vifs]
    (vif,) = latest(vifs)
    assert ("vif4.0", "web1", "u-1.0") == (vif.name, vif.guest, vif.device)


def test_a_vif_of_a_config_says_address_and_ports() -> None:
    (vif,) = configured_vifs("web1", ["bridge=b, ip=10.5.5.201, gatewaydev=cgw 2202:22 123/udp"])
    assert vif.own_words is not None
    annotation = vif.annotation(vif.own_words, "gatewaydev")
    ports = annotation.guest(annotation.addresses).ports
    assert ["*:2202/tcp -> 10.5.5.201:22", "*:123/udp -> 10.5.5.201:123"] == [*map(str, ports)]


@pytest.mark.parametrize("words", [[], ["22/icmp"]])
def test_a_bad_declaration_names_guest_and_place(words: list[str]) -> None:
    (vif,) = configured_vifs("web1", ["ip=10.5.5.201"])
    with pytest.raises(InvalidAnnotation, match=r'guest "web1": gatewaydev'):
        vif.annotation(words, "gatewaydev")

"""xl.cfg as xl reads it, and nothing of it evaluated."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cgw_hooks.core.parse.vif import Vif, configured_vifs, latest, running_vifs
from cgw_hooks.core.parse.xl_cfg import parse_xl_config, strings
from cgw_hooks.errors import InvalidAnnotation, InvalidConfig
from cgw_hooks.host import xl_files
from cgw_hooks.host.xenstore import parse_listing
from cgw_hooks.sources.xl import declarations

if TYPE_CHECKING:
    from pathlib import Path

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
        ("v = [[]]", {"v": [[]]}),
        ('v = [\n ["a", "b"],\n [[1]\n,], "c" ]', {"v": [["a", "b"], [["1"]], "c"]}),
        ('v = [["a"]]\nv += ["b"]', {"v": [["a"], "b"]}),
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
    [
        *('n = "a', "n = [1", "n = ", "n", "= 1", 'n = open("/etc/shadow")', "n = [1 2]"),
        *("n = 1 m = 2", "n = [[1]", "n = [[1] 2]", "n = [1,, 2]", "n = [,]", "n = [1]]"),
        *('n = "a"; n += ["b"]', 'n = ["a"]; n += "b"'),
    ],
)
def test_what_xl_would_not_read_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        parse_xl_config("first = 1\n" + text)


def test_lists_may_lie_in_one_another_as_deep_as_they_like() -> None:
    # Five times the depth at which Python gives a recursion up.
    found = parse_xl_config("v = " + "[" * 5_000 + "]" * 5_000)["v"]
    for _ in range(4_999):
        assert isinstance(found, list)
        (found,) = found
    assert [] == found


def test_where_strings_are_wanted_a_list_within_the_list_is_left_out() -> None:
    assert ["a", "b"] == strings(["a", ["c"], "b"])
    assert ["a"] == strings("a")


@pytest.fixture
def web1_cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guest's config, in a folder in the place of /etc/xen."""
    monkeypatch.setattr(xl_files, "CONFIGS", (str(tmp_path),))
    monkeypatch.setenv("CGW_CONFIG", str(tmp_path / "cgw.toml"))
    return tmp_path / "web1.cfg"


def test_nested_lists_of_other_settings_keep_no_port_from_being_published(web1_cfg: Path) -> None:
    text = 'name = "web1"\nusbdev = [["a", "b"], ["c"]]\ncgw_publish = ["2202:22"]\n'
    web1_cfg.write_text(text, encoding="utf-8")
    (declared,) = declarations(Vif("vif3.0", "web1", "", ip="10.5.5.201"))
    assert [(2202, 22)] == [(forward.start, forward.to) for forward in declared.annotation.forwards]


def test_a_list_within_the_published_ports_is_refused(web1_cfg: Path) -> None:
    text = 'name = "web1"\ncgw_publish = ["2202:22", ["80"]]\n'
    web1_cfg.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidAnnotation) as caught:
        list(declarations(Vif("vif3.0", "web1", "", ip="10.5.5.201")))
    assert (
        f'guest "web1": cgw_publish in {web1_cfg} has a list within the list; '
        'write one list: ["2202:22/tcp", "123/udp"]' == str(caught.value)
    )


def test_a_pipe_among_the_configs_keeps_nobody_waiting(web1_cfg: Path) -> None:
    os.mkfifo(web1_cfg)
    assert [] == list(declarations(Vif("vif3.0", "web1", "", ip="10.5.5.201")))
    files = web1_cfg.parent / "guests.d"
    files.mkdir()
    os.mkfifo(files / "web1.xml")
    assert [] == list(declarations(Vif("vif3.0", "web1", "", ip="10.5.5.201")))


def test_a_config_of_the_guests_name_that_leads_nowhere_is_said_and_not_taken_for_none(
    web1_cfg: Path,
) -> None:
    """To the agent, a link to a file in a home folder leads nowhere: it must keep the ports."""
    web1_cfg.symlink_to("/none/web1.cfg")
    (web1_cfg.parent / "folder").symlink_to("/")
    assert [] == list(declarations(Vif("vif3.0", "web2", "", ip="10.5.5.201")))
    with pytest.raises(InvalidConfig) as caught:
        list(declarations(Vif("vif3.0", "web1", "", ip="10.5.5.201")))
    assert (
        f"{web1_cfg}: it leads to /none/web1.cfg, which is not there; the agent sees no file in "
        f"/root and /home; move the file itself to {web1_cfg}" == str(caught.value)
    )


def test_a_config_that_cannot_be_read_is_said(web1_cfg: Path) -> None:
    web1_cfg.symlink_to("/proc/self/mem")  # its first page cannot be read
    assert [] == list(declarations(Vif("vif3.0", "web2", "", ip="10.5.5.201")))
    with pytest.raises(InvalidConfig, match=f"{web1_cfg}: it cannot be read: "):
        list(declarations(Vif("vif3.0", "web1", "", ip="10.5.5.201")))


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

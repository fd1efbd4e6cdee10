"""What a hook call makes of hostile definitions, through the script that libvirt runs.

A bad annotation refuses its own guest, in one line that names guest, element and value; it
applies nothing and harms nobody. A guest without annotation starts whatever else it says.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.lab.domain import PUBLISH_NAMESPACE
from tests.netns.asker import Asker
from tests.netns.configs import FULL_NAT, GATEWAY, NODE, NODE_AMONG_GUESTS
from tests.netns.conftest import uplink_client, uplink_node
from tests.netns.guest import DONE, Finished, Guest, annotated
from tests.netns.node import OUR_TABLE, SCRIPT, Node

pytestmark = pytest.mark.netns

INVALID = 3
RANGE = '<cgw:range start="2209" to="22"/>'
FORWARD = f'<cgw:portForward proto="tcp">{RANGE}</cgw:portForward>'


@dataclass(frozen=True)
class Scene:
    """A guest that is published, and one whose definition is about to be hostile."""

    client: Asker
    node: Node
    hostile: Guest

    def hook(self, xml: str | bytes, name: str = "web9") -> Finished:
        """Prepare, which must change nothing; libvirt's calls after a refusal likewise."""
        before = self.node.files(), self.node.ruleset()
        finished = self.node.hook(name, "prepare", "-", xml)
        for operation in ("stopped", "release"):
            assert self.node.hook(name, operation, "-", xml) == DONE
        assert (self.node.files(), self.node.ruleset()) == before
        assert self.client.asks(NODE[4], 2202) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
        return finished

    def assert_refused(self, xml: str | bytes, shown: str, name: str = "web9") -> None:
        """The call is refused in one line, in which the guest comes first."""
        finished = self.hook(xml, name)
        assert finished.exit_code == INVALID
        assert re.match(r'cgw: guest ".+?": <', finished.complaint), finished.complaint
        assert shown in finished.complaint
        assert finished.complaint.isprintable()
        assert len(finished.complaint) < 400


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as until_end:
        client = until_end.enter_context(uplink_client())
        folder = tmp_path_factory.mktemp("node")
        node = until_end.enter_context(uplink_node(client, folder, FULL_NAT, SCRIPT))
        node.guest("web1", "2202:22", serves="22/tcp").start()
        yield Scene(client, node, node.guest("web9", "2209:22"))


def test_what_is_made_hostile_below_is_good(scene: Scene) -> None:
    assert RANGE in scene.hostile.xml
    assert scene.hostile.hook("prepare") == DONE
    assert scene.hostile.key in scene.node.records()
    scene.hostile.stop()


@pytest.mark.parametrize(
    ("good", "bad", "shown"),
    [
        ('start="2209"', 'start="0"', '<range start> "0"'),
        ('start="2209"', 'start="65536"', '<range start> "65536"'),
        ('start="2209"', 'start="-1"', '<range start> "-1"'),
        ('start="2209"', 'start="22&quot;; flush ruleset"', '<range start> "22"; flush ruleset"'),
        ('start="2209"', 'start="22&#10;flush ruleset"', r'<range start> "22\nflush ruleset"'),
        ('start="2209"', 'start="٢٢"', '<range start> "٢٢"'),
        ('start="2209"', 'start="$(reboot)"', '<range start> "$(reboot)"'),
        ('to="22"', 'to="65536"', '<range to> "65536"'),
        ('start="2209"', 'start="2209" end="2208"', '<range end> "2208"'),
        ('start="2209" to="22"', 'start="1" end="65535" to="2"', '<range to> "2"'),
        ('to="22"/>', 'to="22"/><cgw:range start="2200" end="2300"/>', "<range> *:2209/tcp"),
        (FORWARD, FORWARD * 2, "<range> *:2209/tcp"),
        ('proto="tcp"', 'proto="icmp"', '<portForward proto> "icmp"'),
        ('proto="tcp"', 'proto="tcp" sources="192.0.2.0/24"', '<portForward> "sources"'),
        ('proto="tcp"', 'proto="tcp" source="0/0 } ; drop"', '<portForward source> "0/0 } ; drop"'),
        ('proto="tcp"', 'proto="tcp" address="127.0.0.1"', '<portForward address> "127.0.0.1"'),
        (RANGE, "<cgw:exec/>", '<portForward> "{urn:cgw-hooks:1}exec"'),
        (RANGE, "", "<portForward>"),
        (
            "</metadata>",
            f'<x:publish xmlns:x="{PUBLISH_NAMESPACE}"/></metadata>',
            "<publish> occurs 2 times",
        ),
        (
            PUBLISH_NAMESPACE,
            "urn:cgw-hooks:2",
            '<metadata>: "{urn:cgw-hooks:2}publish" is not known',
        ),
        ("10.5.5.12", "10.5.6.12", '<publish address="10.5.6.12">: this node '),
        ("10.5.5.12", GATEWAY[4], f'<publish address="{GATEWAY[4]}">: that is the gateway'),
        ("10.5.5.12", NODE_AMONG_GUESTS[4], "that is the node's own address"),
        ("10.5.5.12", "127.0.0.1", '<publish address> "127.0.0.1"'),
        ("10.5.5.12", "10.5.5.12 10.5.5.13", '<publish address> "10.5.5.12 10.5.5.13"'),
        ("</domain>", "", "<domain>: the XML cannot be read"),
        ("<domain ", "<!DOCTYPE domain SYSTEM 'http://192.0.2.1/x'><domain ", "<!DOCTYPE>"),
    ],
)
def test_a_bad_annotation_is_refused_in_one_line(
    scene: Scene, good: str, bad: str, shown: str
) -> None:
    assert good in scene.hostile.xml
    scene.assert_refused(scene.hostile.xml.replace(good, bad, 1), shown)


def entity_bomb(xml: str) -> str:
    """A billion laughs."""
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    doctype = f'<!DOCTYPE domain [<!ENTITY e0 "ha">{lines}]>'
    return doctype + xml.replace("<vcpu>1</vcpu>", "<vcpu>&e9;</vcpu>")


def external_entity(xml: str) -> str:
    """The host's secrets as the guest's port."""
    doctype = '<!DOCTYPE domain [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
    return doctype + xml.replace(RANGE, f"&e;{RANGE}")


def described(xml: str, mebibytes: int) -> str:
    """With a description of this size."""
    text = "x &quot;y&quot; " * (mebibytes << 16)
    return xml.replace("<metadata>", f"<description>{text}</description><metadata>")


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (entity_bomb, "<"),
        (external_entity, "<!DOCTYPE>"),
        (lambda xml: described(xml, 50), "<domain>"),
        (lambda xml: xml[: xml.index(RANGE) + 9], "<domain>: the XML cannot be read"),
        (lambda xml: xml.replace("<vcpu>", "<vcpu>" + "<a>" * 5000), "<domain>: the XML cannot"),
        (
            lambda xml: xml.encode().replace(b"<vcpu>", b"<vcpu>\xff\xfe"),
            "<domain>: the XML cannot",
        ),
    ],
    ids=["entity bomb", "external entity", "50 MiB", "truncated", "deep", "not UTF-8"],
)
def test_a_bad_document_is_refused_in_one_line(
    scene: Scene, make: Callable[[str], str | bytes], shown: str
) -> None:
    scene.assert_refused(make(scene.hostile.xml), shown)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("we\"b'9", '"we"b\'9"'),
        ("web\n9", r'"web\n9"'),
        ("; touch /tmp/x $(reboot)", '"; touch /tmp/x $(reboot)"'),
        ("-h", '"-h"'),
        ("wéb-网-🦊", '"wéb-网-🦊"'),
        ("\x1b[2J", r'"\x1b[2J"'),
        ("w" * 200, f'"{"w" * 80}..."'),
    ],
)
def test_a_hostile_name_is_shown_on_one_line_and_publishes_as_any_other(
    scene: Scene, name: str, shown: str
) -> None:
    scene.assert_refused(
        scene.hostile.xml.replace("2209", "0", 1), f"guest {shown}: <range start>", name
    )
    for operation in ("prepare", "started"):
        assert scene.node.hook(name, operation, "-", scene.hostile.xml) == DONE
    assert scene.node.states()[name] == "published"
    assert scene.node.cgw("status").returncode == 0
    for operation in ("stopped", "release"):
        assert scene.node.hook(name, operation, "-", scene.hostile.xml) == DONE


OURS = PUBLISH_NAMESPACE
METADATA = """<other:publish xmlns:other="urn:other:1"><other:range start="0"/></other:publish>"""


@pytest.mark.parametrize(
    "make",
    [
        lambda xml: described(xml, 20),
        lambda xml: xml.replace("<metadata>", f"<metadata>{METADATA}"),
        lambda xml: xml.replace("<metadata>", f"<title>a=&quot;{OURS}</title><metadata>"),
        lambda xml: xml.replace("</domain>", ""),
        lambda xml: xml.replace("<uuid>", "<uuid>../../"),
        lambda _xml: "",
        lambda _xml: "\0" * 1000,
        lambda _xml: b"\xff\xfe\n",
    ],
    ids=["20 MiB", "others' metadata", "our name in a title", "truncated", "bad uuid", "empty",
         "zeros", "not UTF-8"],
)  # fmt: skip
def test_a_guest_without_annotation_starts(
    scene: Scene, make: Callable[[str], str | bytes]
) -> None:
    plain = annotated(scene.hostile)
    assert "urn:cgw-hooks" not in plain
    assert scene.hook(make(plain)) == DONE
    assert scene.node.hook("web9", "started", "-", make(plain)) == DONE


def test_a_bad_annotation_at_a_later_call_is_told_of_and_stops_nobody(scene: Scene) -> None:
    """It was edited while the guest ran: what was published stays as it was."""
    scene.hostile.start()
    before = scene.node.our_table()
    assert OUR_TABLE in before
    bad = scene.hostile.xml.replace('start="2209"', 'start="0"')
    assert scene.hostile.hook("reconnect", xml=bad) == DONE
    assert scene.node.our_table() == before
    assert '<range start> "0"' in scene.node.status()["web9"]["problem"]["message"]
    scene.hostile.stop(xml=bad)
    assert set(scene.node.states()) == {"web1"}

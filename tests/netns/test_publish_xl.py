"""`cgw publish` for plain xl guests: guests.d/NAME.xml, and at once if the guest runs.

The real xenstore needs a real Xen (`tests/xen`). Here a program in its place prints the same.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab import domain, network
from tests.libvirt.waiting import eventually
from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import CLIENT, NODE
from tests.netns.node import CGW, Node
from tests.netns.vif import Vif

pytestmark = pytest.mark.netns

INVALID, CONFLICT, CONFIG, UNKNOWN = 3, 4, 5, 8
OCTET = 11
ANSWER = f"web1 saw {CLIENT[4]}"


@dataclass(frozen=True)
class XlNode:
    """A node whose xenstore has one guest, web1."""

    node: Node
    xenstore: Path
    programs: Path

    @property
    def file(self) -> Path:
        """The guest's annotation."""
        return self.node.folder / "guests.d/web1.xml"

    def start(self, gatewaydev: str = "") -> None:
        """Let xenstore have the guest's vif."""
        home = "/local/domain/1"
        backend = "/local/domain/0/backend/vif/1/0"
        self.xenstore.write_text(
            f'{home}/name = "web1"\n{home}/vm = "/vm/{domain.guest_uuid(OCTET)}"\n'
            f'{backend}/ip = "{network.guest_address(OCTET)}"\n{backend}/bridge = ""\n'
            + (f'{backend}/gatewaydev = "{gatewaydev}"\n' if gatewaydev else "")
        )

    def cgw(self, *arguments: str, code: int = 0) -> str:
        """Run cgw; what it printed, of an error its line."""
        path = f"{self.programs}:{self.node.environment()['PATH']}"
        done = subprocess.run(
            [*self.node.namespace.enter_command(), str(CGW), *arguments],
            env={**self.node.environment(), "PATH": path}, cwd="/", text=True,
            capture_output=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout


@pytest.fixture
def xl(node: Node) -> XlNode:
    node.guest("web1", serves="7/tcp-echo 22/tcp 80/tcp", octet=OCTET)
    programs = node.folder / "programs"
    programs.mkdir()
    xenstore = node.folder / "xenstore"
    xenstore.write_text("")
    program = programs / "xenstore-ls"
    program.write_text(f"#!/bin/sh\ncat {xenstore}\n")
    program.chmod(0o755)
    return XlNode(node, xenstore, programs)


def test_a_running_guest_is_published_at_once(client: Asker, xl: XlNode) -> None:
    xl.start()
    assert xl.cgw("publish", "web1", "8080:80", "7007:7") == (
        "web1  0.0.0.0:8080 -> 10.5.5.11:80/tcp\nweb1  0.0.0.0:7007 -> 10.5.5.11:7/tcp\n"
    )
    assert client.asks(NODE[4], 8080) == ANSWER
    found = xl.file.stat()
    assert (found.st_uid, found.st_mode & 0o777) == (os.geteuid(), 0o644)
    assert xl.file.parent.stat().st_mode & 0o777 == 0o755
    with client.tcp_session(NODE[4], 7007) as session:
        assert session.exchange("one") == "one"
        xl.cgw("unpublish", "web1", "7007", "7007/tcp")  # named twice
        with pytest.raises((TimeoutError, ConnectionError)):
            session.exchange("two", timeout=1)
    assert client.asks(NODE[4], 8080) == ANSWER
    xl.cgw("unpublish", "web1")
    assert client.asks(NODE[4], 8080) == REFUSED
    assert not xl.file.exists()
    assert xl.node.files() == {}


def test_the_vif_script_reads_what_was_written(client: Asker, xl: XlNode) -> None:
    xl.start()
    xl.cgw("publish", "web1", "8080:80")
    vif = Vif(xl.node, "web1", OCTET)
    vif.offline()
    assert client.asks(NODE[4], 8080) == REFUSED
    vif.online()
    assert client.asks(NODE[4], 8080) == ANSWER
    xl.cgw("unpublish", "web1")


def test_what_the_file_says_already_stays(xl: XlNode) -> None:
    xl.start()
    xl.file.parent.mkdir()
    xl.file.write_text(
        '<!-- Ann --><publish><portForward proto="tcp"><range start="2202" to="22"/>'
        "</portForward></publish>\n"
    )
    xl.cgw("publish", "web1", "8080:80")
    assert xl.file.read_text().startswith("<!-- Ann --><publish>")
    assert {row["listen_ports"][0] for row in xl.node.status_rows()} == {2202, 8080}
    xl.cgw("unpublish", "web1")
    assert xl.node.files() == {}


def test_a_refusal_leaves_everything_as_it_was(client: Asker, xl: XlNode) -> None:
    xl.node.guest("web2", "8088:80", octet=OCTET + 1).start()
    xl.start()
    xl.cgw("publish", "web1", "8080:80")
    before = xl.file.read_text(), xl.node.files(), xl.node.ruleset()
    assert "is published by guest" in xl.cgw("publish", "web1", "8088:80", code=CONFLICT)
    assert "publishes 8080:80/tcp" in xl.cgw("publish", "web1", "8080:81", code=CONFLICT)
    assert "omit --live" in xl.cgw("publish", "web1", "8081:80", "--live", code=UNKNOWN)
    assert "does not publish" in xl.cgw("unpublish", "web1", "8081", code=UNKNOWN)
    assert (xl.file.read_text(), xl.node.files(), xl.node.ruleset()) == before
    assert client.asks(NODE[4], 8080) == ANSWER
    xl.cgw("unpublish", "web1")


def test_a_vif_that_declares_its_ports_itself_is_left_alone(xl: XlNode) -> None:
    xl.start("cgw 2202:22")
    said = xl.cgw("publish", "web1", "8080:80", code=INVALID)
    assert "gatewaydev of its vif1.0 declares its ports" in said
    assert not xl.file.exists()


def test_a_folder_that_others_can_write_to_is_refused(xl: XlNode) -> None:
    xl.start()
    xl.file.parent.mkdir()
    xl.file.parent.chmod(0o777)
    assert "others than root" in xl.cgw("publish", "web1", "8080:80", code=CONFIG)
    assert not xl.file.exists()
    assert xl.node.files() == {}


def test_a_dry_run_writes_nothing(xl: XlNode) -> None:
    xl.start()
    said = xl.cgw("publish", "web1", "8080:80", "--dry-run")
    assert '+  <portForward proto="tcp"><range start="8080" to="80"/></portForward>' in said
    assert "add element inet cgw published4 { 6 . 8080 : 10.5.5.11 . 80 }" in said
    assert not xl.file.parent.exists()
    assert not xl.node.runtime.exists()


def test_a_time_that_passes_is_taken_back_by_sync(client: Asker, xl: XlNode) -> None:
    xl.start()
    xl.cgw("publish", "web1", "8080:80")
    xl.cgw("publish", "web1", "7007:7", "--for", "1s")
    assert eventually(lambda: xl.node.status()["web1"]["state"] == "expired")
    xl.cgw("sync")
    assert [client.asks(NODE[4], 7007), client.asks(NODE[4], 8080)] == [REFUSED, ANSWER]
    assert "7007" not in xl.file.read_text()
    assert xl.cgw("sync") == ""
    xl.cgw("unpublish", "web1")

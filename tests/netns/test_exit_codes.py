"""The same fault ends every command with the same exit code and one line that says what it is."""

import fcntl
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.netns.asker import Asker
from tests.netns.configs import FULL_NAT, NODE
from tests.netns.conftest import NodeMaker
from tests.netns.faults import owned_table
from tests.netns.guest import Guest
from tests.netns.node import CGW, CHECKOUT, SCRIPT, Node

pytestmark = pytest.mark.netns

INVALID, CONFLICT, CONFIG, STATE, SILENT, UNKNOWN = 3, 4, 5, 6, 7, 8
#: Every command that needs the node's config.
READERS = ["status", "status --json", "render", "sync", "check", "check -", "node up", "node down"]

ONE_LINE = re.compile(r"cgw: [^\n]+\n")


def ended(node: Node, command: str, given: str = "") -> tuple[int, str]:
    """How a command ended, and its one line on stderr."""
    done = node.cgw(*command.split(), given=given, check=False)
    assert "Traceback" not in done.stderr
    assert ONE_LINE.fullmatch(done.stderr), done.stderr
    return done.returncode, done.stderr.removeprefix("cgw: ").rstrip()


# -- what a guest asks for -------------------------------------------------------------------


def ways(node: Node, guest: Guest, xml: str) -> dict[str, tuple[int, str]]:
    """How each command ends that reads a definition."""
    path = node.folder / "guest.xml"
    path.write_text(xml)
    refused = node.hook(guest.name, "prepare", "-", xml)
    return {
        "hook": (refused.exit_code, refused.complaint.removeprefix("cgw: ")),
        "check -": ended(node, "check -", xml),
        "check FILE": ended(node, f"check {path}"),
    }


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (("2203", "0"), INVALID),
        (("2203", "9" * 5000), INVALID),
        (("10.5.5.12", "8.8.8.8"), INVALID),
        (("</domain>", ""), INVALID),
        (("2203", "2202"), CONFLICT),
    ],
    ids=["port", "5,000 digits", "target", "XML", "another guest's"],
)
def test_an_annotation_is_refused_alike_by_hook_and_check(
    node: Node, edit: tuple[str, str], code: int
) -> None:
    node.guest("web1", "2202:22").start()
    web2 = node.guest("web2", "2203:22")
    found = ways(node, web2, web2.xml.replace(*edit))
    assert {one for one, _ in found.values()} == {code}
    assert len({line for _, line in found.values()}) == 1, found


def test_a_port_of_the_nodes_own_is_refused_alike(node: Node) -> None:
    web1 = node.guest("web1", "2202:22")
    node.serve(NODE[4], "2202/tcp")
    found = ways(node, web1, web1.xml)
    assert {one for one, _ in found.values()} == {CONFLICT}


@pytest.mark.parametrize("program", [CGW, SCRIPT], ids=["cgw", "script"])
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-"])
def test_with_stderr_closed_a_conflict_is_still_refused(
    node: Node, closed: str, program: object
) -> None:
    node.guest("web1", "2202:22").start()
    web2 = node.guest("web2", "2202:22")
    web2.hooked.append("started")  # libvirt will say that it stops
    call = [str(program), *(() if program == SCRIPT else ("hook", "qemu"))]
    for operation, code in (("prepare", CONFLICT), ("started", 0)):
        done = subprocess.run(
            [*node.namespace.enter_command(), "sh", "-c", f'exec "$@" {closed}', "sh",
             *call, "web2", operation, "begin", "-"],
            env=node.environment(), input=web2.xml.encode(), check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == code


# -- the config ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[node\n", "it is not TOML"),
        ("[node]\nnane = 'x'\n", 'node."nane": unknown key'),
        (f"[node]\nname = {'9' * 5000}\n", "it is not TOML"),
        (f"[node]\nname = {'[' * 5000}\n", "it is not TOML"),
        ("[[remote-guest]]\nname = 'web9'\n", "remote-guest[1].address: it is missing"),
    ],
    ids=["syntax", "key", "5,000 digits", "5,000 brackets", "entry"],
)
def test_a_config_that_is_wrong(node: Node, command: str, text: str, said: str) -> None:
    node.configure(text)
    xml = node.guest("web1", "2202:22").xml
    code, line = ended(node, command, xml)
    assert (code, line.startswith(str(node.config_file)), said in line) == (CONFIG, True, True)
    node.configure("")


# -- records, lock and ruleset ---------------------------------------------------------------


@contextmanager
def no_folder(node: Node) -> Iterator[None]:
    node.runtime.write_text("")
    yield
    node.runtime.unlink()


@contextmanager
def unreadable_record(node: Node) -> Iterator[None]:
    (record,) = (node.runtime / "guests").iterdir()
    text = record.read_text()
    record.write_text("{")
    yield
    record.write_text(text)


@contextmanager
def held_lock(node: Node) -> Iterator[None]:
    with open(node.runtime / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


Fault = Callable[[Node], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("fault", "command", "code"),
    [
        *((no_folder, command, STATE) for command in ("status", "render", "sync", "node up")),
        (unreadable_record, "render", STATE),
        (unreadable_record, "status", 1),  # the node's problem, not the command's
        *((held_lock, command, STATE) for command in ("sync", "node up", "node down")),
        *((owned_table, command, STATE) for command in ("sync", "node up")),
    ],
)
def test_what_cannot_be_read_or_changed(
    make_node: NodeMaker, fault: Fault, command: str, code: int
) -> None:
    node = make_node(FULL_NAT)
    if fault is unreadable_record or fault is held_lock:
        node.guest("web1", "2202:22").start()
    with fault(node):
        done = node.cgw(*command.split(), check=False)
        assert "Traceback" not in done.stderr
        assert (done.returncode, done.stderr.startswith("cgw: ")) == (code, True), done.stderr
    if command.startswith("node"):
        node.cgw("node", "down", check=False)


# -- libvirt, guests and files ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("check web1", SILENT, "libvirt: it does not answer at qemu:///system"),
        ("publish web1 80:80", SILENT, "libvirt: it does not answer at qemu:///system"),
        ("unpublish web1", SILENT, "libvirt: it does not answer at qemu:///system"),
        ("check /none/web1.xml", UNKNOWN, "/none/web1.xml: there is no such file"),
        ("check web1.xml", UNKNOWN, "web1.xml: there is no such file"),
        ("check none/web1", UNKNOWN, "none/web1: there is no such file"),
        ("check none.toml", UNKNOWN, "none.toml: there is no such file"),
        ("status web1", UNKNOWN, '"web1": no guest of this name is published'),
        ("status web1 --json", UNKNOWN, '"web1": no guest of this name is published'),
        ("status web1 --graph", UNKNOWN, '"web1": no guest of this name is published'),
    ],
)
def test_who_is_not_there_is_not_who_does_not_answer(
    node: Node, command: str, code: int, said: str
) -> None:
    found, line = ended(node, command)
    assert (found, said in line) == (code, True), line


# -- guests of other nodes -------------------------------------------------------------------

REMOTE = '[[remote-guest]]\nname = "far"\naddress = "10.5.5.{0}"\npublish = ["2202:22"]\n'


def test_messages_about_a_remote_guest_name_the_configs_entry(node: Node) -> None:
    node.guest("web1", "2202:22").start()
    node.configure(REMOTE.format(77))
    said = node.cgw("sync", check=False).stderr
    assert 'cgw: remote-guest "far": port *:2202/tcp is published by guest "web1"; ' in said
    assert 'remote-guest "far": port *:2202/tcp' in node.cgw("status", check=False).stderr
    node.configure(REMOTE.format(254).replace("10.5.5.254", "8.8.8.8"))
    for command in ("sync", "check far"):
        assert 'cgw: remote-guest "far": ' in node.cgw(*command.split(), check=False).stderr
    assert ended(node, "check far")[0] == INVALID
    node.configure("")
    node.cgw("sync", check=False)


def test_check_of_a_remote_guest_reads_the_config(node: Node) -> None:
    node.configure(REMOTE.format(77))
    done = node.cgw("check", "far")
    assert done.stdout == "*:2202/tcp -> 10.5.5.77:22  (of another node)\n"


# -- what a sync says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("flush ruleset", "table inet cgw is not there"),
        ("flush chain inet cgw publish", "chain publish does not have its"),
        ("flush map inet cgw published4", "table inet cgw: 1 elements were missing"),
        (
            "add element inet cgw published4 { tcp . 99 : 10.5.5.99 . 99 }",
            "table inet cgw: 1 elements were left over",
        ),
    ],
)
def test_a_sync_says_what_it_repaired(client: Asker, node: Node, loss: str, said: str) -> None:
    node.guest("web1", "2202:22", serves="22/tcp").start()
    for options in ([], ["--json"]):
        node.nft(loss + "\n")
        done = node.cgw("sync", *options, check=False)
        assert said in done.stdout
        assert ("repaired" in done.stdout) == (said in done.stdout)
        assert client.asks(NODE[4], 2202).startswith("web1")
        assert "repaired  " not in node.cgw("sync", check=False).stdout


def test_readme_and_help_list_the_same_exit_codes(node: Node) -> None:
    helped = node.cgw("--help").stdout
    listed = dict(
        re.findall(r"^  (\d)  (.+)$", helped[helped.index("exit codes:") :], re.MULTILINE)
    )
    readme = (CHECKOUT / "README.md").read_text()
    text = " ".join(readme[readme.index("Exit codes:") :].partition("\n\n")[0].split())
    told = dict(re.findall(r"(\d) (.+?)(?=; \d|\.$)", text.removeprefix("Exit codes: ")))
    assert told == listed
    assert set(listed) == set("0123456789")

"""`cgw` as a person or a program calls it: what it prints where, and how it ends."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab import domain
from tests.lab.status_json import read_status
from tests.netns.configs import FULL_NAT
from tests.netns.conftest import uplink_client, uplink_node
from tests.netns.guest import Guest
from tests.netns.node import CGW, OUR_TABLE, Node
from tests.netns.specs import port_forward

pytestmark = pytest.mark.netns

COMMANDS = [
    "publish",
    "unpublish",
    "deny",
    "allow",
    "status",
    "doctor",
    "trace",
    "flows",
    "log",
    "check",
    "render",
    "sync",
    "agent",
    "node",
    "registry",
    "install",
    "uninstall",
    "hook",
]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
LISTED = r"\*:2202/tcp -> 10\.5\.5\.11:22"


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Its one line on stderr; nothing may be on stdout."""
        assert re.fullmatch(r"cgw: [^\n]+\n", self.err), self.err
        assert self.out == ""
        return self.err.removeprefix("cgw: ").removesuffix("\n")


@dataclass(frozen=True)
class Host:
    """A node where web1 is published; its files are where everybody could look."""

    node: Node
    web1: Guest

    def cgw(
        self, *arguments: str, given: str = "", program: tuple[str, ...] = (), **env: str
    ) -> Ended:
        done = subprocess.run(
            [*self.node.namespace.enter_command(), *program, str(CGW), *arguments],
            env={**self.node.environment(), **env}, cwd="/", text=True, input=given,
            capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def file(self, name: str, text: str, mode: int = 0o644) -> str:
        path = self.node.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with ExitStack() as until_end:
        client = until_end.enter_context(uplink_client())
        folder = Path(until_end.enter_context(tempfile.TemporaryDirectory(prefix="cgw-")))
        folder.chmod(0o755)
        node = until_end.enter_context(uplink_node(client, folder, FULL_NAT))
        node.config_file.chmod(0o644)
        web1 = node.guest("web1", "2202:22", "192.168.122.99:53:53/udp")
        web1.start()
        yield Host(node, web1)


# -- help and usage --------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([c, "-h"] for c in COMMANDS)])
def test_help_is_printed_and_nothing_is_done(host: Host, arguments: list[str]) -> None:
    helped = host.cgw(*arguments)
    assert (helped.code, helped.err) == (0, "")
    assert helped.out.startswith(("usage: cgw", "cgw "))


def test_help_names_every_command_and_every_exit_code(host: Host) -> None:
    helped = host.cgw("--help").out
    assert all(re.search(rf"\n +{command} +\S", helped) for command in COMMANDS)
    readme = (CGW.parents[2] / "README.md").read_text()
    for code in range(10):
        assert f"\n  {code}  " in helped
        assert re.search(rf"\b{code} \w+", readme[readme.index("Exit codes:") :])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x"],
        ["status", "x", "y"],
        ["node"],
        ["node", "x"],
        ["sync", "-x"],
        ["hook"],
        ["hook", "qemu"],
        ["status", "--json", "--graph"],
        ["publish", "web1", "80:80", "--dry-run", "--json"],
        ["unpublish", "web1", "--json", "--dry-run"],
    ],
)
def test_a_misspelt_command_line_is_exit_code_2(host: Host, arguments: list[str]) -> None:
    ended = host.cgw(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("usage: cgw")


def test_the_error_about_an_unknown_command_lists_those_that_help_lists(host: Host) -> None:
    listed = re.search(r"choose from (.*)\)", host.cgw("statuses").err)
    assert listed
    assert sorted(COMMANDS) == sorted(re.findall(r"[a-z-]+", listed[1]))


def test_an_annotation_alone_is_checked_without_its_guests_address(host: Host) -> None:
    """As `virsh metadata` prints it: the guest's interfaces are not in it."""
    text = domain.publish_element(port_forward("8080:80") + port_forward("5353:53/udp"))
    checked = host.cgw("check", "-", given=text)
    assert (checked.code, checked.err) == (0, "")
    assert {"*:8080/tcp -> ?:80", "*:5353/udp -> ?:53"} <= set(checked.out.splitlines())
    ended = host.cgw("check", host.file("other.xml", text.replace('"8080"', '"2202"')))
    assert ended.code == 4
    assert 'port *:2202/tcp is published by guest "web1"' in ended.error


@pytest.mark.parametrize("option", ["--source", "--guest-address"])
def test_an_option_that_is_given_twice_is_refused(host: Host, option: str) -> None:
    ended = host.cgw("publish", "web1", "80:80", option, "10.0.0.1", option, "10.0.0.2")
    assert (ended.code, ended.out) == (2, "")
    said = f"cgw publish: error: argument {option}: give it once, with commas between several"
    assert said in ended.err


# -- what is published -----------------------------------------------------------------------


def test_status_is_a_table_for_people(host: Host) -> None:
    ended = host.cgw("status")
    assert (ended.code, ended.err) == (0, "")
    heading, *rows = ended.out.splitlines()
    assert heading.split() == ["GUEST", "LISTEN", "TARGET", "FROM", "SINCE", "STATE"]
    words = [row.split() for row in rows]
    assert [(w[0], w[3], w[-1]) for w in words] == [
        ("web1", "anywhere", "dormant"),
        ("web1", "anywhere", "published"),
    ]


def test_status_is_json_for_programs(host: Host) -> None:
    ended = host.cgw("status", "--json")
    assert (ended.code, ended.err) == (0, "")
    status = read_status(ended.out)
    assert set(status) == {"version", "node", "published", "problems"}
    row = status["published"][1]
    assert (row["guest"], row["listen_ports"], row["target_address"]) == (
        "web1", [2202, 2202], "10.5.5.11",
    )  # fmt: skip


def test_where_nothing_is_published_status_says_so(host: Host) -> None:
    host.node.nft(f"delete table {OUR_TABLE}\n")
    ended = host.cgw("status", CGW_RUNTIME_DIR=str(host.node.folder / "none"))
    host.node.cgw("sync", check=False)
    assert ended == Ended(0, "Nothing is published.\n", "")
    assert not (host.node.folder / "none").exists()


def test_status_is_1_where_something_is_wrong(host: Host) -> None:
    host.node.nft(f"delete table {OUR_TABLE}\n")
    try:
        ended = host.cgw("status")
        assert ended.code == 1
        assert ended.err == "cgw: ruleset: table inet cgw is not there; run: cgw sync\n"
    finally:
        host.node.cgw("sync", check=False)
    assert host.cgw("status").code == 0


def test_render_is_what_nft_takes(host: Host) -> None:
    ended = host.cgw("render")
    assert (ended.code, ended.err) == (0, "")
    before = host.node.our_table()
    host.node.nft(ended.out, "-c")
    assert host.node.our_table() == before
    host.node.nft(ended.out)
    assert host.node.our_table() == before


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_sync_without_libvirt_says_so_and_keeps_what_is_recorded(
    host: Host, options: list[str]
) -> None:
    before = host.node.our_table(), host.node.files()
    ended = host.cgw("sync", *options)
    assert ended.code == 1
    if options:
        report = json.loads(ended.out)
        assert (report["published"], report["withdrawn"], ended.err) == ([], [], "")
        (problem,) = report["problems"]
        assert (problem["code"], problem["subject"]) == ("hypervisor", "libvirt")
    else:
        assert ended.error.startswith("libvirt: it does not answer at qemu:///system")
    assert (host.node.our_table(), host.node.files()) == before


# -- check -----------------------------------------------------------------------------------


def test_check_without_a_subject_is_of_the_nodes_own_config(host: Host) -> None:
    assert host.cgw("check") == Ended(0, f"{host.node.config_file}: ok\n", "")
    assert host.cgw("check", CGW_CONFIG="/none") == Ended(0, "defaults (no file): ok\n", "")


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_check_shows_what_a_definition_would_publish(host: Host, way: str) -> None:
    xml = host.web1.xml
    subject = host.file("web1.xml", xml) if way == "file" else "-"
    ended = host.cgw("check", subject, given=xml)
    assert (ended.code, ended.err) == (0, "")
    assert re.search(LISTED, ended.out), ended.out
    assert len(ended.out.splitlines()) == 2


@pytest.mark.parametrize(
    ("edit", "code", "said"),
    [
        (("2202", "0"), 3, '<range start> "0"'),
        (("urn:cgw-hooks:1", "urn:other"), 3, "it publishes nothing"),
        (("</domain>", ""), 3, "the XML cannot be read"),
        (("00000000000b", "0000000000ff"), 4, 'is published by guest "web1"'),
    ],
)
def test_check_ends_as_the_hook_would(
    host: Host, edit: tuple[str, str], code: int, said: str
) -> None:
    before = host.node.files(), host.node.ruleset()
    ended = host.cgw("check", "-", given=host.web1.xml.replace(*edit))
    assert ended.code == code
    assert said in ended.error
    assert (host.node.files(), host.node.ruleset()) == before


def test_check_of_a_guest_asks_libvirt(host: Host) -> None:
    ended = host.cgw("check", "web1")
    assert ended.code == 7
    assert ended.error.startswith("libvirt: it does not answer")


def test_check_takes_the_name_of_a_folder_for_that_of_a_guest(host: Host) -> None:
    assert host.cgw("check", "etc").error.startswith("libvirt: it does not answer")
    assert "Is a directory" in host.cgw("check", "/etc").error


def test_a_closed_stdin_is_an_empty_one(host: Host) -> None:
    ended = host.cgw("check", "-", program=("sh", "-c", 'exec "$@" <&-', "sh"))
    assert 3 == ended.code
    assert "the XML cannot be read" in ended.error


def test_check_reads_a_config_by_its_name(host: Host) -> None:
    good, bad = host.file("good.toml", FULL_NAT), host.file("bad.toml", "[node]\nnane = 'x'\n")
    assert host.cgw("check", good) == Ended(0, f"{good}: ok\n", "")
    ended = host.cgw("check", bad)
    assert ended.code == 5
    assert ended.error.startswith(f'{bad}: node."nane": unknown key')


@pytest.fixture
def entry(host: Host) -> Iterator[Path]:
    """A file of guests.d that is not there yet."""
    folder = host.node.folder / "guests.d"
    folder.mkdir()
    yield folder / "web2.xml"
    shutil.rmtree(folder)


def test_check_reads_the_entries_of_remote_guests(host: Host, entry: Path) -> None:
    entry.write_text("<publish")
    ended = host.cgw("check")
    assert 3 == ended.code
    assert ended.error.startswith('guest "web2": <domain>: the XML cannot be read')
    entry.write_text("<publish/>")
    entry.chmod(0o666)
    assert f"{entry}: others than root can write to it" in host.cgw("check").error
    entry.chmod(0o644)
    assert 0 == host.cgw("check").code


def test_check_refuses_a_remote_guest_that_asks_twice_for_a_port(host: Host) -> None:
    given = "[[remote-guest]]\nname='x'\naddress='10.5.5.2'\npublish=['80:80', '80:81']\n"
    ended = host.cgw("check", CGW_CONFIG=host.file("twice.toml", given))
    assert 3 == ended.code
    assert "overlap" in ended.error


def test_a_pipe_among_the_entries_keeps_nobody_waiting(host: Host, entry: Path) -> None:
    os.mkfifo(entry, 0o644)
    cure = f"{entry}: it is not a regular file; move it away"
    assert cure == host.cgw("check").error
    assert f"cgw: {cure}\n" in host.cgw("status").err


# -- errors ----------------------------------------------------------------------------------


def test_no_guest_is_said_to_be_withdrawn_that_is_not(host: Host) -> None:
    powerless = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    ended = host.cgw("withdraw-all", program=powerless)
    assert (6, "") == (ended.code, ended.out)


@pytest.mark.parametrize("command", ["status", "render", "sync", "check"])
@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("[node\n", 0o644, "config: it is not TOML"),
        ("[uplink]\naddress = '192.168.122.999'\n", 0o644, 'uplink.address: "192.168.122.999"'),
        (FULL_NAT, 0o666, "others than root can write to it"),
        (FULL_NAT, 0o664, "others than root can write to it"),
    ],
)
def test_a_config_that_is_wrong_or_anybodys_is_exit_code_5(
    host: Host, command: str, text: str, mode: int, said: str
) -> None:
    path = host.file("wrong.toml", text, mode)
    ended = host.cgw(command, CGW_CONFIG=path)
    assert ended.code == 5
    assert ended.error.startswith(f"{path}: {said}")


def test_a_config_of_somebody_elses_is_exit_code_5(host: Host) -> None:
    path = host.file("theirs.toml", FULL_NAT)
    os.chown(path, 65534, 65534)
    assert host.cgw("sync", CGW_CONFIG=path).code == 5


@pytest.mark.parametrize("command", ["status", "render", "sync"])
def test_a_runtime_folder_that_is_none_is_one_line(host: Host, command: str) -> None:
    path = host.file("no-folder", "")
    assert path in host.cgw(command, CGW_RUNTIME_DIR=path).error


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["render"], ["sync"], ["node", "up"], ["node", "down"], ["install"]],
    ids=" ".join,
)
def test_who_is_not_root_is_told_so_in_one_line(host: Host, arguments: list[str]) -> None:
    before = host.node.files(), host.node.ruleset()
    ended = host.cgw(*arguments, program=NOBODY)
    assert ended.code in {1, 6}
    assert (
        "run the command as root" in ended.error
        or "run it as root" in ended.error
        or "Permission denied" in ended.error
    )
    assert (host.node.files(), host.node.ruleset()) == before


def test_who_is_not_root_may_check(host: Host) -> None:
    assert host.cgw("check", program=NOBODY).code == 0


@pytest.mark.parametrize("command", ["render", "--help", "status"])
@pytest.mark.parametrize(
    ("unwritable", "ended"),
    [
        ("closed pipe", (0, "")),
        ("full disk", (1, "cgw: standard output: No space left on device\n")),
    ],
)
def test_where_its_output_cannot_be_written(
    host: Host, command: str, unwritable: str, ended: tuple[int, str]
) -> None:
    """A reader who had enough (`cgw render | head -1`) is no error; a full disk is."""
    reading, pipe = os.pipe()
    os.close(reading)
    with open(pipe, "wb") as closed, open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*host.node.namespace.enter_command(), str(CGW), command],
            env=host.node.environment(), text=True, check=False, stderr=subprocess.PIPE,
            stdout=closed if unwritable == "closed pipe" else full,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == ended


CLOSED = "cgw: standard output: Bad file descriptor\n"


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["status", "--json"], ["status", "--graph"], ["check"], ["render"],
     ["sync", "--json"], ["node", "down"], ["install", "--root", "{0}/root"],
     ["uninstall", "--root", "{0}/root"], ["--help"], ["--version"], ["hook", "--help"]],
    ids=" ".join,
)  # fmt: skip
def test_a_closed_stdout_is_one_line(host: Host, arguments: list[str]) -> None:
    (host.node.folder / "root").mkdir(exist_ok=True)
    given = [argument.format(host.node.folder) for argument in arguments]
    if "uninstall" in given:
        host.cgw("install", *given[1:])
    ended = host.cgw(*given, program=("sh", "-c", 'exec "$@" >&-', "sh"))
    assert ended == Ended(1, "", CLOSED)
    if arguments == ["node", "down"]:
        host.web1.start()  # what it did it has done


def test_with_stdout_closed_what_prints_nothing_ends_as_ever(host: Host) -> None:
    before = host.cgw("sync")
    assert host.cgw("sync", program=("sh", "-c", 'exec "$@" >&-', "sh")) == before


def test_with_stderr_closed_the_exit_code_says_it_all(host: Host) -> None:
    config = host.file("bad.toml", "[node\n")
    closed = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    assert host.cgw("render", CGW_CONFIG=config, program=closed) == Ended(5, "", "")

"""How `cgw status` and its fellows write: whole, plain where nobody sees colours, and harmless."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.netns.configs import NONE
from tests.netns.conftest import uplink_client, uplink_node
from tests.netns.node import CGW, Node

pytestmark = pytest.mark.netns

LONG_NAME = "database-of-the-accounting-department-in-the-second-building"
SOURCES = ", ".join(f"192.168.{n}.0/24" for n in (1, 3, 5, 7, 9, 11, 13, 15))
#: Of C0, DEL and C1: colour, title, cursor; then a direction override and an isolate of Unicode.
CONTROLS = "\x1b[31m \x07 \x7f \x9b31m \x9d0;x\x9c \u202e \u2066 \u200f"
ESCAPED = ["\\x1b[31m", "\\x07", "\\x7f", "\\x9b31m", "\\x9d", "\\u202e", "\\u2066", "\\u200f"]
HOSTILE_NAME = f"web{CONTROLS}"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """Three guests: one with a long name and many sources, one with a hostile name."""
    with ExitStack() as until_end:
        client = until_end.enter_context(uplink_client())
        folder = Path(until_end.enter_context(TemporaryDirectory(prefix="cgw-")))
        made = until_end.enter_context(uplink_node(client, folder, NONE))
        made.guest(LONG_NAME, f"2202-2299:22 from {SOURCES}").start()
        made.guest("web2", "[fd00:122::11]:40000-40123:40000", family=6).start()
        made.guest("hostile", "2201:22").start()
        path = next(
            path for path in (made.runtime / "guests").iterdir() if "2201" in path.read_text()
        )
        path.write_text(path.read_text().replace('"hostile"', f'"{_json(HOSTILE_NAME)}"'))
        yield made


def _json(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def ran(
    node: Node, *arguments: str, stdout: int = subprocess.PIPE, **env: str
) -> "subprocess.CompletedProcess[str]":
    """A real process, whose stdout may be a terminal."""
    return subprocess.run(
        [*node.namespace.enter_command(), str(CGW), *arguments],
        env={**node.environment(), **env}, cwd="/", text=True, check=False, encoding="utf-8",
        stdout=stdout, stderr=subprocess.PIPE, timeout=60,
    )  # fmt: skip


def on_terminal(node: Node, columns: int, *arguments: str) -> str:
    """What cgw writes on a terminal of this width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    try:
        ran(node, *arguments, stdout=slave, TERM="xterm-256color")
    finally:
        os.close(slave)
    written = b""
    with open(master, "rb", buffering=0) as file:
        while True:
            try:
                written += file.read(65536)
            except OSError:  # EIO: the other end is closed
                return written.decode().replace("\r\n", "\n")


def words(line: str) -> list[str]:
    return re.split(r" {2,}", line)


def test_what_is_piped_is_never_cut_and_never_coloured(node: Node) -> None:
    wide = ran(node, "status")
    assert "\x1b" not in wide.stdout
    heading, *rows = map(words, wide.stdout.splitlines())
    assert heading == ["GUEST", "LISTEN", "TARGET", "FROM", "SINCE", "STATE"]
    row = next(row for row in rows if row[0] == LONG_NAME)
    assert row[1:4] == ["*:2202-2299/tcp", "10.5.5.11:22-119", SOURCES]
    assert len(rows) == 3
    for columns, term in (("20", "dumb"), ("40", "xterm-256color")):
        narrow = ran(node, "status", COLUMNS=columns, TERM=term, FORCE_COLOR="1")
        assert narrow.stdout == wide.stdout


@pytest.mark.parametrize("columns", [200, 80, 40, 24])
def test_a_terminal_folds_lines_and_loses_nothing(node: Node, columns: int) -> None:
    whole = ran(node, "status").stdout
    written = on_terminal(node, columns, "status")
    lines = written.splitlines()
    assert max(map(len, lines)) <= columns
    # Column by column, the pieces are the whole.
    assert sorted(re.sub(r"\s", "", whole)) == sorted(re.sub(r"\s", "", written))
    if columns >= 40:
        start = lines[0].index("LISTE")
        names = "".join(line[: start - 2].strip() for line in lines)
        assert LONG_NAME in names


def test_a_wide_terminal_gets_what_a_pipe_gets(node: Node) -> None:
    assert on_terminal(node, 400, "status") == ran(node, "status").stdout


@pytest.mark.parametrize("arguments", [["status"], ["status", "--graph"], ["sync"], ["render"]])
def test_control_characters_of_a_name_reach_no_terminal(node: Node, arguments: list[str]) -> None:
    ended = ran(node, *arguments)
    assert (ended.stdout + ended.stderr).replace("\n", "").isprintable()
    if arguments[0] == "status":
        shown = ended.stdout.replace("\\\\", "\\")
        assert all(escape in shown for escape in ESCAPED)


def test_a_problem_shows_a_name_with_its_control_characters_escaped(node: Node) -> None:
    node.nft("flush map inet cgw published4\n")
    ended = ran(node, "status")
    node.cgw("sync", check=False)
    assert ended.returncode == 1
    assert ended.stderr.replace("\n", "").isprintable()
    assert all(escape in ended.stderr for escape in ESCAPED)


def test_json_escapes_by_itself(node: Node) -> None:
    ended = ran(node, "status", "--json")
    assert ended.stdout.isascii()
    assert ended.stdout.replace("\n", "").isprintable()
    assert HOSTILE_NAME in [row["guest"] for row in node.status_rows()]


@pytest.mark.parametrize("operation", ["prepare", "started"])
def test_a_hook_and_a_check_show_such_a_name_escaped(node: Node, operation: str) -> None:
    xml = node.guests[-1].xml.replace("2201", "0").replace("hostile", "web\x9b31m\u202e")
    refused = node.hook(HOSTILE_NAME, operation, "-", xml)
    assert refused.exit_code == (3 if operation == "prepare" else 0)
    assert refused.complaint.isprintable()
    checked = node.cgw("check", "-", given=xml, check=False)
    assert checked.returncode == 3
    assert checked.stderr.removesuffix("\n").isprintable()
    assert "\\x9b31m\\u202e" in checked.stderr


def test_status_of_one_guest(node: Node) -> None:
    one = ran(node, "status", "web2")
    assert (one.returncode, one.stderr) == (0, "")
    assert [words(line)[0] for line in one.stdout.splitlines()] == ["GUEST", "web2"]
    assert LONG_NAME not in ran(node, "status", "web2", "--graph").stdout
    nobody = ran(node, "status", "web")
    assert (nobody.returncode, nobody.stdout) == (8, "")
    assert re.fullmatch(r'cgw: "web": [^\n]+; see: cgw status\n', nobody.stderr)

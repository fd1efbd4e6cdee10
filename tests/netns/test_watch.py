"""`cgw status --watch`, on a terminal and in a pipe, until Ctrl-C."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.netns.configs import NODE
from tests.netns.node import CGW, Node
from tests.netns.test_figures import settings

pytestmark = pytest.mark.netns

_LONGEST_WAIT = 60.0
HOME = "\x1b[H"


class Watching:
    """A running command whose output is a terminal or a pipe."""

    def __init__(self, process: "subprocess.Popen[bytes]", reader: int) -> None:
        self.process = process
        self._reader = reader
        self.written = ""

    def until(self, text: str) -> str:
        """Read until this comes; return what has come since the last time."""
        end = time.monotonic() + _LONGEST_WAIT
        while text not in self.written:
            assert time.monotonic() < end, self.written
            self.written += os.read(self._reader, 65536).decode().replace("\r\n", "\n")
        found, _, self.written = self.written.partition(text)
        return found + text

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=_LONGEST_WAIT)


@contextmanager
def watching(node: Node, *arguments: str, rows: int = 0, columns: int = 80) -> Iterator[Watching]:
    """Run `cgw status --watch 0.2`, on a terminal of this size or (0 rows) in a pipe."""
    if rows:
        reader, writer = pty.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    else:
        reader, writer = os.pipe()
    process = subprocess.Popen(
        [*node.namespace.enter_command(), str(CGW), "status", "--watch", "0.2", *arguments],
        env=node.environment() | {"TERM": "xterm"}, cwd="/", stdin=subprocess.DEVNULL,
        stdout=writer, stderr=writer,
    )  # fmt: skip
    os.close(writer)
    try:
        yield Watching(process, reader)
    finally:
        process.kill()
        process.wait()
        os.close(reader)


def test_a_terminal_shows_each_change_in_the_place_of_the_former_state(node: Node) -> None:
    with watching(node, rows=30, columns=100) as seen:
        first = seen.until("Nothing is published.")
        assert first.startswith(HOME)
        assert "every 0.2 s, Ctrl-C ends" in first
        node.guest("web1", "2202:22").start()
        drawn = seen.until("published\x1b[K\n")
        assert HOME in drawn
        assert "10.5.5.11:22" in drawn
        assert seen.interrupt() == 0


def test_the_exit_code_is_that_of_the_last_look(node: Node) -> None:
    node.guest("web1", "2202:22").start()
    with watching(node, rows=30, columns=100) as seen:
        seen.until("published")
        node.serve(NODE[4], "2202/tcp")
        seen.until("run: ")  # the cure of the problem, which else would go to stderr
        assert seen.interrupt() == 1


def test_a_small_terminal_says_how_much_it_does_not_show(node: Node) -> None:
    node.guest("web1", *(f"{port}:22" for port in range(2200, 2230))).start()
    with watching(node, rows=10, columns=70) as seen:
        drawn = seen.until(" more lines)").rpartition(HOME)[2]
        assert "GUEST" in drawn
        assert drawn.endswith("(25 more lines)")  # of 33, with the time, an empty line, a heading
        assert max(map(len, drawn.replace("\x1b[K", "").splitlines())) <= 70


def test_a_pipe_gets_whole_looks_one_after_the_other(node: Node) -> None:
    settings(node, "acct")
    node.guest("web1", *(f"{port}:22" for port in range(2200, 2230))).start()
    with watching(node, "--figures") as seen:
        for _ in range(3):
            look = seen.until("\n\n")
            assert "\x1b" not in look
            moment, heading, *lines = look.strip().splitlines()
            assert time.strptime(moment, "%Y-%m-%d %H:%M:%S")
            assert heading.startswith("GUEST ")
            assert len(lines) == 30
        assert seen.interrupt() == 0


def test_json_is_one_object_after_the_other(node: Node) -> None:
    node.guest("web1", "2202:22").start()
    with watching(node, "--json", "web1") as seen:
        for _ in range(2):
            assert json.loads(seen.until("\n}\n"))["published"][0]["guest"] == "web1"
        assert seen.interrupt() == 0


def test_a_watched_guest_that_goes_and_comes_is_shown_again(node: Node) -> None:
    web1 = node.guest("web1", "2202:22")
    with watching(node, "web1") as seen:
        seen.until("no guest of this name is published")  # a mistyped name ends it at once
        assert seen.process.wait(timeout=_LONGEST_WAIT) == 8
    web1.start()
    with watching(node, "web1") as seen:
        seen.until("10.5.5.11:22")
        web1.stop()
        seen.until("no guest of this name is published")
        web1.start()
        seen.until("10.5.5.11:22")
        web1.stop()
        seen.until("no guest of this name is published")
        assert seen.interrupt() == 8


def test_a_reader_that_has_read_enough_ends_it(node: Node) -> None:
    command = f"{CGW} status --watch 0.1 | head -n 4"
    done = subprocess.run(
        [*node.namespace.enter_command(), "sh", "-c", command],
        env=node.environment(), capture_output=True, text=True, check=True, timeout=_LONGEST_WAIT,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 4
    assert done.stderr == ""


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_a_time_that_makes_no_sense_is_refused(node: Node, seconds: str) -> None:
    refused = node.cgw("status", f"--watch={seconds}", check=False)
    assert refused.returncode == 2
    assert "give seconds, from 0.1 to 86400" in refused.stderr


def test_the_word_after_it_may_be_the_guest(node: Node) -> None:
    missing = node.cgw("status", "--watch", "web9", check=False)
    assert missing.returncode == 8
    assert '"web9": no guest of this name' in missing.stderr

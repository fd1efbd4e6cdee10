"""What cgw logs, into a real journal and into files of syslog, and what `cgw log` makes of it."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.lab import domain
from tests.netns.guest import DONE, Guest
from tests.netns.node import Node
from tests.netns.own_mounts import OwnMounts, own_mounts

pytestmark = pytest.mark.netns

JOURNALD = "/lib/systemd/systemd-journald"
SOCKET = "/run/systemd/journal/socket"
_LONGEST_WAIT = 60.0
#: One that every user may run.
PYTHON3 = "/usr/bin/python3"
#: /run and /var/log of the test's own, and a machine-id, by which the journal's folder is named.
_PREPARE = """
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/systemd/journal /run/log
echo 0123456789abcdef0123456789abcdef >/run/id
mount --bind /run/id /etc/machine-id
"""


class Journal:
    """A journald in a mount namespace, and calls of cgw there."""

    def __init__(self, mounts: OwnMounts, daemon: "subprocess.Popen[bytes]") -> None:
        self.mounts = mounts
        self._daemon = daemon

    def hook(self, guest: Guest, *operations: str) -> None:
        """Make hook calls, none of which may be refused."""
        for operation in operations:
            guest.hooked.append(operation)
            assert self.mounts.hook(guest, operation) == DONE

    def log(self, *arguments: str) -> list[dict[str, Any]]:
        """What `cgw log --json` prints; journald has read all messages by then."""
        subprocess.run(
            [*self.mounts.enter_command(), "journalctl", "--sync"], check=False, capture_output=True
        )
        done = self.mounts.cgw("log", *arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        entries: list[dict[str, Any]] = json.loads(done.stdout)["entries"]
        return entries

    def signal(self, number: int) -> None:
        """Send a signal to journald."""
        self._daemon.send_signal(number)


@contextmanager
def journald(node: Node) -> Iterator[Journal]:
    """A journal of the test's own."""
    with own_mounts(node) as mounts:
        mounts.run(_PREPARE)
        daemon = subprocess.Popen(
            [*mounts.enter_command(), JOURNALD], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            end = time.monotonic() + _LONGEST_WAIT
            look = [*mounts.enter_command(), "test", "-S", SOCKET]
            while subprocess.run(look, check=False).returncode:
                assert time.monotonic() < end
                time.sleep(0.05)
            yield Journal(mounts, daemon)
        finally:
            daemon.send_signal(signal.SIGCONT)
            daemon.kill()
            daemon.wait()


@pytest.fixture
def journal(node: Node) -> Iterator[Journal]:
    """A journal of the test's own."""
    with journald(node) as made:
        yield made


def events(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(each["guest"], each["event"], each["operation"]) for each in found]


def test_a_start_and_a_stop_are_in_the_journal_with_fields(node: Node, journal: Journal) -> None:
    web1 = node.guest("web1", "2202:22")
    web2 = node.guest("web2", "2203:22")
    before = time.time()
    journal.hook(web1, "prepare", "started")
    journal.hook(web2, "prepare", "started")
    journal.hook(web1, "stopped", "release")
    found = journal.log()
    assert events(found) == [
        ("web1", "published", "started"),
        ("web2", "published", "started"),
        ("web1", "withdrawn", "stopped"),
    ]
    first = found[0]
    assert before - 1 < datetime.fromisoformat(first["time"]).timestamp() < time.time() + 1
    expected = {
        "id": web1.key, "uuid": domain.guest_uuid(web1.octet), "by": "hook", "served_by": "call",
        "ports": "*:2202/tcp -> 10.5.5.11:22", "code": None, "user": None, "is_error": False,
        "message": 'guest "web1": published *:2202/tcp -> 10.5.5.11:22',
    }  # fmt: skip
    assert {name: first[name] for name in expected} == expected
    assert events(journal.log("web1")) == [events(found)[0], events(found)[2]]
    assert journal.log(domain.guest_uuid(web2.octet)) == [found[1]]
    assert journal.log("-n", "1") == [found[2]]
    assert journal.log("--since", "1h") == found
    assert journal.log("--since", "2030-01-01") == []
    assert journal.log("web3") == []
    heading, *lines = journal.mounts.cgw("log").stdout.splitlines()
    assert heading.split() == ["TIME", "GUEST", "EVENT", "BY", "WHAT"]
    assert lines[0].endswith("  web1   published  hook started  *:2202/tcp -> 10.5.5.11:22")
    assert journal.mounts.cgw("log", "web3").stdout == "Nothing is logged.\n"


def test_a_refusal_and_a_problem_are_in_the_log(node: Node, journal: Journal) -> None:
    journal.hook(node.guest("web1", "2202:22"), "prepare", "started")
    web2 = node.guest("web2", "2202:80")
    assert journal.mounts.hook(web2, "prepare").exit_code == 4
    (found,) = journal.log("web2")
    assert (found["event"], found["code"], found["is_error"]) == ("refused", "port-conflict", False)
    assert "port *:2202/tcp" in found["message"]


HOSTILE_NAME = "web1\nCGW_EVENT=forged\nCGW_GUEST=web2\n\nMESSAGE=x\x1b[31m"


def test_a_hostile_name_begins_no_field(node: Node, journal: Journal) -> None:
    web1 = node.guest("web1", "2202:22")
    hostile = Guest(node, HOSTILE_NAME, web1.octet, web1.xml)
    node.guests.append(hostile)
    journal.hook(hostile, "prepare", "started")
    (found,) = journal.log()
    assert (found["event"], found["guest"]) == ("published", HOSTILE_NAME)
    assert journal.log("web2") == []
    printed = journal.mounts.cgw("log").stdout
    assert "\x1b" not in printed
    assert len(printed.splitlines()) == 2


def test_what_another_user_writes_in_the_name_of_cgw_is_not_shown(
    node: Node, journal: Journal
) -> None:
    forge = (
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
        f"s.sendto(b'MESSAGE=forged\\nSYSLOG_IDENTIFIER=cgw\\nCGW_GUEST=web1\\n', {SOCKET!r})"
    )
    user = ("setpriv", "--reuid", "65534", "--clear-groups", PYTHON3, "-c", forge)
    subprocess.run([*journal.mounts.enter_command(), *user], check=True)
    journal.hook(node.guest("web1", "2202:22"), "prepare", "started")
    assert [each["event"] for each in journal.log("web1")] == ["published"]
    look = [*journal.mounts.enter_command(), "journalctl", "-o", "cat", "CGW_GUEST=web1"]
    assert "forged" in subprocess.run(look, check=True, capture_output=True, text=True).stdout
    assert [each["event"] for each in journal.log()] == ["published"]


def test_a_hung_journald_holds_no_guest_up(node: Node, journal: Journal) -> None:
    journal.signal(signal.SIGSTOP)
    fill = (
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.setblocking(False)\n"
        "try:\n"
        f" while True: s.sendto(b'MESSAGE=x\\n', {SOCKET!r})\n"
        "except BlockingIOError: pass"
    )
    subprocess.run([*journal.mounts.enter_command(), "python3", "-c", fill], check=True)
    journal.hook(node.guest("web1", "2202:22"), "prepare", "started")
    assert node.states() == {"web1": "published"}


def test_a_message_that_journald_does_not_take_goes_to_syslog(node: Node) -> None:
    """Where there is no journald, and where it has just ended and left its socket."""
    with own_mounts(node) as mounts:
        mounts.run(_PREPARE)
        web1 = node.guest("web1", "2202:22")
        journal = Journal(mounts, subprocess.Popen(["true"]))
        journal.hook(web1, "prepare", "started")
        assert 'guest "web1": published *:2202/tcp -> 10.5.5.11:22' in mounts.syslog()
        make = f"import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind({SOCKET!r})"
        subprocess.run([*mounts.enter_command(), "python3", "-c", make], check=True)
        journal.hook(web1, "stopped", "release")
        assert 'guest "web1": withdrawn' in mounts.syslog()


def test_where_no_journal_is_the_files_of_syslog_are_read(node: Node) -> None:
    now = datetime.now().astimezone()
    lines = [
        'Nov 30 10:00:00 host kernel: guest "web1": published by the kernel?',
        f'{now:%b %e %H:%M:%S} host cgw[12]: guest "web1": published *:2202/tcp -> 10.5.5.11:22',
        f'{now.isoformat()} host cgw[13]: sync: guest "web2": withdrawn *:2203/tcp -> 10.5.5.12:22',
        f"{now.isoformat()} host cgw[14]: agent: repaired table inet cgw: 1 elements were missing",
        "no line of syslog",
    ]
    written = Path(node.folder / "lines")
    written.write_text("".join(f"{line}\n" for line in lines))
    with own_mounts(node) as mounts:
        mounts.run(_PREPARE + "rm -f /run/log/journal")
        journal = Journal(mounts, subprocess.Popen(["true"]))
        gone = mounts.cgw("log")
        assert gone.returncode in {0, 8}
        assert gone.stdout in {"", "Nothing is logged.\n"}
        mounts.run(f"cp {written} /var/log/syslog")
        found = journal.log()
        assert [(e["guest"], e["event"], e["by"], e["ports"]) for e in found] == [
            ("web1", "published", "hook", "*:2202/tcp -> 10.5.5.11:22"),
            ("web2", "withdrawn", "sync", "*:2203/tcp -> 10.5.5.12:22"),
            (None, "repaired", "agent", None),
        ]
        assert abs(datetime.fromisoformat(found[0]["time"]).timestamp() - now.timestamp()) < 2
        assert journal.log("web2") == [found[1]]
        assert journal.log("-n", "1") == [found[2]]
        assert journal.log("--since", "2030-01-01") == []


@pytest.mark.parametrize(
    "arguments", [("--since", "yesterday"), ("--since", ""), ("-n", "0"), ("-n", "many")]
)
def test_what_cannot_be_meant_is_refused(node: Node, arguments: tuple[str, str]) -> None:
    refused = node.cgw("log", *arguments, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "give " in refused.stderr

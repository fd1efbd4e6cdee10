"""What systemd is told, at a real socket."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgw_hooks.host import notify

pytestmark = pytest.mark.netns


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The socket at which systemd listens."""
    path = f"@cgw-{os.getpid()}-notify" if request.param == "abstract" else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("\0" + path[1:] if path[0] == "@" else path)
        made.setblocking(False)
        yield made


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(65536).decode().split("\n")


def test_what_is_said(manager: socket.socket) -> None:
    assert notify.ready("7 guests published")
    assert heard(manager) == ["READY=1", "STATUS=7 guests published"]
    assert notify.status("8 guests published")
    assert heard(manager) == ["STATUS=8 guests published"]
    assert notify.alive()
    assert heard(manager) == ["WATCHDOG=1"]
    before = time.monotonic_ns() // 1000
    assert notify.reloading()
    first, second = heard(manager)
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert notify.stopping()
    assert heard(manager) == ["STOPPING=1"]


def test_a_status_is_one_line(manager: socket.socket) -> None:
    assert notify.status('guest "a"\nMAINPID=1\x1b')
    assert heard(manager) == ['STATUS=guest "a"\\nMAINPID=1\\x1b']


def test_nobody_is_told_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.ready("")
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1")
    assert not notify.ready("")
    monkeypatch.setenv("NOTIFY_SOCKET", "/absent")
    assert not notify.ready("")


@pytest.mark.parametrize(
    ("limit", "process", "interval"),
    [
        ("30000000", "self", 15.0),
        ("30000000", None, 15.0),
        ("30000000", "1", None),
        ("0", "self", None),
        ("no", "self", None),
        (None, None, None),
    ],
)
def test_how_often_the_watchdog_waits_for_a_word(
    monkeypatch: pytest.MonkeyPatch, limit: str | None, process: str | None, interval: float | None
) -> None:
    process = str(os.getpid()) if process == "self" else process
    for name, value in (("WATCHDOG_USEC", limit), ("WATCHDOG_PID", process)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert notify.watchdog_interval() == interval

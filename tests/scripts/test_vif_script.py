"""The vif script itself: it is vif-bridge to every guest, and a little more to one that publishes.

It runs under the real /bin/sh in a folder of the test's own (`dom0.py`). A small program in the
place of ``cgw`` notes how it was called.
"""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.scripts.dom0 import BACKEND, VIF_SCRIPT, Dom0
from tests.scripts.script_host import BROKEN
from tests.unit.builders import PYTHON, ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.scripts

CLIENT = ROOT / "cgw_hooks/agent/client.pl"
WORDS = "cgw 2202:22/tcp 123/udp"
#: The script that the guest's vif names. Beside vif-bridge ours is sourced; vif-cgw calls both.
SCRIPTS = ["vif-cgw", "vif-bridge"]
OFFLINE = ["hook", "xl", "web1", "offline", "vif3.0", "-"]
ONLINE = ["hook", "xl", "web1", "online", "vif3.0", "/vm/c0ffee"]


@pytest.fixture
def dom0(tmp_path: Path) -> Dom0:
    return Dom0(tmp_path)


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("netdev", ["", "eth0", "cgwx 2202:22", "not cgw 2202:22"])
def test_a_vif_that_declares_nothing_never_meets_a_broken_cgw(
    dom0: Dom0, script: str, how: str, netdev: str
) -> None:
    dom0.breaks_cgw(how)
    for command in ("online", "offline"):
        done = dom0.run(script, command, netdev=netdev)
        assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)
    assert ["online type_if=vif", "done", "offline type_if=vif", "done"] == dom0.bridged()
    assert ("connected", "") == dom0.status()


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_broken_cgw_stops_not_even_a_guest_that_publishes(
    dom0: Dom0, script: str, how: str
) -> None:
    dom0.breaks_cgw(how)
    dom0.record("xl-vif3.0")
    for command in ("online", "offline"):
        done = dom0.run(script, command, netdev=WORDS)
        assert (0, b"") == (done.returncode, done.stdout)
    assert ["online type_if=vif", "done", "offline type_if=vif", "done"] == dom0.bridged()
    assert ("connected", "") == dom0.status()


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("netdev", [WORDS, "cgw"])
def test_cgw_is_told_of_the_vif_once_and_given_its_backend(
    dom0: Dom0, script: str, netdev: str
) -> None:
    done = dom0.run(script, "online", netdev=netdev)
    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)
    (call,) = dom0.calls()
    assert ONLINE == call["argv"]
    assert {f'{BACKEND}/ip = "10.5.5.201"', f'{BACKEND}/gatewaydev = "{netdev}"'} <= set(
        str(call["stdin"]).splitlines()
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_cgw_is_asked_of_a_vif_without_words_where_files_could_speak_of_its_guest(
    dom0: Dom0, script: str
) -> None:
    (dom0.root / "etc/guests.d").mkdir(parents=True)
    assert 0 == dom0.run(script, "online").returncode
    assert [] == dom0.calls()
    (dom0.root / "etc/guests.d/web9.xml").touch()
    assert 0 == dom0.run(script, "online").returncode
    assert [ONLINE] == [call["argv"] for call in dom0.calls()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_as_installed_it_runs_an_interpreter_and_never_cgw_itself(dom0: Dom0, script: str) -> None:
    """The Xen driver of libvirt runs it under the profile of AppArmor that its hooks have, too."""
    cgw = dom0.root / "bin/cgw"
    dom0.installs(PYTHON, cgw, CLIENT)
    cgw.chmod(0o644)
    dom0.record("xl-vif3.0")
    assert 0 == dom0.run(script, "online", netdev=WORDS).returncode
    assert 0 == dom0.run(script, "offline").returncode
    assert [ONLINE, OFFLINE] == [call["argv"] for call in dom0.calls()]


@pytest.mark.parametrize("what", ["a hung agent", "a dead socket", "a file", "no client"])
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("status", [0, 3, 4])
def test_without_an_answer_of_the_agent_cgw_is_called(
    dom0: Dom0, script: str, what: str, status: int
) -> None:
    dom0.installs(PYTHON, dom0.root / "bin/cgw", "/none" if what == "no client" else CLIENT)
    dom0.records_calls(status)
    dom0.record("xl-vif3.0")
    place = dom0.root / "run/agent.sock"
    with socket.socket(socket.AF_UNIX) as agent:
        if what == "a file":
            place.touch()
        else:
            agent.bind(str(place))
        if what == "a hung agent":
            agent.listen()
        for command in ("online", "offline"):
            done = dom0.run(script, command, netdev=WORDS)
            refused = status if command == "online" else 0
            assert (1 if refused else 0, b"") == (done.returncode, done.stdout)
            assert dom0.status() == (("error", "the reason") if status else ("connected", ""))
    assert [ONLINE, OFFLINE] == [call["argv"] for call in dom0.calls()]
    assert f'{BACKEND}/ip = "10.5.5.201"' in str(dom0.calls()[0]["stdin"]).splitlines()


@pytest.mark.parametrize("script", SCRIPTS)
def test_offline_is_passed_on_only_where_there_is_a_record(dom0: Dom0, script: str) -> None:
    """Xl calls it also for a vif that never was online."""
    dom0.record("xl-vif3.1")
    dom0.record("qemu-vif3.0")
    assert 0 == dom0.run(script, "offline", netdev=WORDS).returncode
    assert [] == dom0.calls()
    dom0.record("xl-vif3.0")
    assert 0 == dom0.run(script, "offline").returncode
    assert [OFFLINE] == [call["argv"] for call in dom0.calls()]
    assert ["offline type_if=vif", "done"] * 2 == dom0.bridged()


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("status", [3, 4])
def test_a_refusal_reaches_xl_with_its_reason(dom0: Dom0, script: str, status: int) -> None:
    dom0.records_calls(status)
    done = dom0.run(script, "online", netdev=WORDS)
    assert (1, b"") == (done.returncode, done.stdout)
    assert ("error", "the reason") == dom0.status()


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("status", [1, 2, 5, 6, 7, 126, 127, 137, 255])
def test_after_any_other_failure_the_guest_starts(dom0: Dom0, script: str, status: int) -> None:
    dom0.records_calls(status)
    done = dom0.run(script, "online", netdev=WORDS)
    assert (0, b"") == (done.returncode, done.stdout)
    assert 1 == len(dom0.calls())
    assert ("connected", "") == dom0.status()


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("status", [0, 1, 3, 4, 127])
def test_offline_always_ends_well(dom0: Dom0, script: str, status: int) -> None:
    dom0.records_calls(status)
    dom0.record("xl-vif3.0")
    done = dom0.run(script, "offline")
    assert (0, b"") == (done.returncode, done.stdout)
    assert "done" in dom0.bridged()


@pytest.mark.parametrize("script", SCRIPTS)
def test_nothing_is_published_at_a_vif_that_vif_bridge_could_not_set_up(
    dom0: Dom0, script: str
) -> None:
    (dom0.root / "bridge-fails").touch()
    assert 5 == dom0.run(script, "online", netdev=WORDS).returncode
    assert [] == dom0.calls()


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "type_if=tap"),
        ("remove", "type_if=tap"),
        ("online", "type_if=tap"),
        ("offline", "type_if=tap"),
        ("add", "type_if=vif"),
        ("remove", "type_if=vif"),
    ],
)
def test_other_calls_are_vif_bridges_alone(
    dom0: Dom0, script: str, arguments: tuple[str, ...]
) -> None:
    """An HVM guest has a tap device beside each vif; both are one network device."""
    dom0.record("xl-vif3.0")
    assert 0 == dom0.run(script, *arguments, netdev=WORDS).returncode
    assert [] == dom0.calls()
    assert [" ".join(arguments), "done"] == dom0.bridged()


@pytest.mark.parametrize("tool", ["read", "ls", "write"])
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("status", [0, 4])
def test_a_xenstore_that_fails_changes_nothing_of_the_outcome(
    dom0: Dom0, script: str, tool: str, status: int
) -> None:
    dom0.records_calls(status)
    if tool != "write":
        (dom0.root / f"bin/xenstore-{tool}").unlink()
    elif status:
        (dom0.root / "store" / BACKEND / "hotplug-error").mkdir(parents=True)
    done = dom0.run(script, "online", netdev=WORDS)
    assert (1 if status else 0, b"") == (done.returncode, done.stdout)


@pytest.mark.parametrize("name", ["web1", "we'b\"1", "a b  c", "-n", "$(id)", "*", "\\t%s", "é-网"])
def test_the_guests_name_reaches_cgw_byte_for_byte(dom0: Dom0, name: str) -> None:
    dom0.says("/local/domain/3/name", name)
    dom0.run("vif-cgw", "online", netdev=WORDS)
    assert [[*ONLINE[:2], name, *ONLINE[3:]]] == [call["argv"] for call in dom0.calls()]


def test_the_script_is_posix_shell_and_executable() -> None:
    assert os.access(VIF_SCRIPT, os.X_OK)
    assert VIF_SCRIPT.read_text(encoding="ascii").startswith("#!/bin/sh\n")
    checked = subprocess.run(["/bin/sh", "-n", VIF_SCRIPT], capture_output=True, check=False)
    assert (0, b"") == (checked.returncode, checked.stderr)

"""cgw.service: start, reload, stop, crash and hang of the agent, as systemd sees them."""

import pytest

from tests.documents import block
from tests.libvirt.waiting import eventually
from tests.systemd.agent_host import (
    ANSWER,
    GUEST,
    NEIGHBOUR,
    NEIGHBOUR_ADDRESS,
    NEIGHBOUR_PORT,
    NEIGHBOURS_ANSWER,
    PORT,
    AgentHost,
)

pytestmark = pytest.mark.systemd

IS_ON_BOTH_SUITES = True
CONFIG = "/etc/cgw/cgw.toml"
REMOTE_GUEST = f"""\
[[remote-guest]]
name = "{NEIGHBOUR}"
address = "{NEIGHBOUR_ADDRESS}"
publish = ["{NEIGHBOUR_PORT}:80"]
"""
HASTY = "[Service]\nWatchdogSec=3\n"
#: A fault of the host's own that is not about cgw.
REFUSALS = ("denied", "not permitted", "read-only file system", "avc:", "traceback")


def test_the_unit_is_active_only_after_the_agent_has_made_the_node_right(on: AgentHost) -> None:
    on.host.systemctl("stop", "cgw.service")
    on.shell("rm -r /run/cgw; nft flush ruleset; systemctl restart libvirtd")
    assert ANSWER != on.asks()
    on.host.systemctl("start", "cgw.service")
    assert ANSWER == on.asks()


def test_the_unit_waits_for_a_libvirt_that_is_slow_to_answer(on: AgentHost) -> None:
    on.host.systemctl("stop", "cgw.service")
    on.signal("libvirtd", "STOP")
    on.host.systemctl("start", "--no-block", "cgw.service")
    assert eventually(lambda: "start" in on.show("SubState"))
    assert "activating" == on.show("ActiveState")
    on.signal("libvirtd", "CONT")
    assert eventually(lambda: "active" == on.show("ActiveState"))
    assert ANSWER == on.asks()


def test_a_reload_takes_the_new_config_and_keeps_the_process(on: AgentHost) -> None:
    pid = on.show("MainPID")
    assert "refused" == on.asks(NEIGHBOUR_PORT)
    on.host.write(CONFIG, REMOTE_GUEST)
    on.host.systemctl("reload", "cgw.service")
    on.wait_for_answer(NEIGHBOUR_PORT, NEIGHBOURS_ANSWER)
    on.host.path(CONFIG).unlink()
    on.host.systemctl("reload", "cgw.service")
    assert eventually(lambda: "refused" == on.asks(NEIGHBOUR_PORT))
    assert pid == on.show("MainPID")


def test_a_reload_with_a_bad_config_keeps_the_former_one_and_says_so(on: AgentHost) -> None:
    pid, before = on.show("MainPID"), on.cursor()
    on.host.write(CONFIG, '[policy]\nlisten-prots = ["9000-9999"]\n')
    on.host.systemctl("reload", "cgw.service")
    assert eventually(lambda: "the former config stays" in on.journal(since=before))
    assert "listen-prots" in on.journal(since=before)
    assert ANSWER == on.asks()
    assert ("active", pid) == (on.show("ActiveState"), on.show("MainPID"))


def test_a_stopped_agent_leaves_the_ports_open_and_hooks_work_without_it(on: AgentHost) -> None:
    on.host.systemctl("stop", "cgw.service")
    assert "success" == on.show("Result")
    assert ANSWER == on.asks()
    on.call_hook("prepare", "start", "started")
    assert NEIGHBOURS_ANSWER == on.asks(NEIGHBOUR_PORT)
    on.call_hook("stopped", "release")
    assert "refused" == on.asks(NEIGHBOUR_PORT)
    assert "inactive" == on.show("ActiveState")


def test_records_survive_a_stop_and_a_restart(on: AgentHost) -> None:
    before = on.records()
    assert before
    on.host.systemctl("stop", "cgw.service")
    assert before == on.records()
    on.host.systemctl("start", "cgw.service")
    on.host.systemctl("restart", "cgw.service")
    assert before == on.records()
    mode = on.host.path("/run/cgw").stat()
    assert (0o40700, 0, 0) == (mode.st_mode, mode.st_uid, mode.st_gid)


def test_a_killed_agent_is_started_again_and_hooks_are_served(on: AgentHost) -> None:
    pid, before = on.show("MainPID"), on.records()
    on.signal("cgw.service", "KILL")
    assert ANSWER == on.asks()
    assert eventually(lambda: pid != on.show("MainPID") and "active" == on.show("ActiveState"))
    assert before == on.records()
    assert "1" == on.show("NRestarts")
    _assert_serves(on)


def test_an_agent_whose_folder_was_removed_is_started_again(on: AgentHost) -> None:
    """In its sandbox the folder is a mount, which goes with the folder."""
    pid = on.show("MainPID")
    on.shell("rm -r /run/cgw")
    assert eventually(lambda: pid != on.show("MainPID") and "active" == on.show("ActiveState"))
    assert ANSWER == on.asks()
    assert on.records()
    _assert_serves(on)


def test_a_hung_agent_is_started_again_by_the_watchdog(on: AgentHost) -> None:
    on.drop_in(HASTY)
    on.host.systemctl("restart", "cgw.service")
    pid, before = on.show("MainPID"), on.cursor()
    on.signal("cgw.service", "STOP")
    assert ANSWER == on.asks()
    assert eventually(lambda: pid != on.show("MainPID") and "active" == on.show("ActiveState"))
    assert "Failed with result 'watchdog'" in on.journal(since=before)
    _assert_serves(on)


def test_a_working_agent_is_left_alone_by_the_watchdog(on: AgentHost) -> None:
    on.drop_in(HASTY)
    on.host.systemctl("restart", "cgw.service")
    pid = on.show("MainPID")
    told = on.show("WatchdogTimestampMonotonic")
    assert eventually(lambda: int(on.show("WatchdogTimestampMonotonic")) > int(told) + 9_000_000)
    assert (pid, "0") == (on.show("MainPID"), on.show("NRestarts"))


def test_systemctl_status_says_in_a_line_what_it_does(on: AgentHost) -> None:
    assert "serving hooks" in on.show("StatusText")
    said = on.host.run(["systemctl", "status", "cgw.service"]).stdout
    assert 'Status: "serving hooks' in said


def test_nothing_is_refused_to_the_agent_and_no_unit_has_failed(on: AgentHost) -> None:
    before = on.cursor()
    on.host.systemctl("restart", "cgw.service")
    on.call_hook("prepare", "start", "started", "stopped", "release")
    on.shell("nft flush ruleset; systemctl restart libvirtd")
    on.wait_for_answer()
    journal = on.journal(since=before).lower()
    assert "published" in journal
    assert [] == [line for line in journal.splitlines() if any(w in line for w in REFUSALS)]
    assert "" == on.host.run(["systemctl", "--failed", "--no-legend"]).stdout.strip()


def _assert_serves(on: AgentHost) -> None:
    """The agent, and not a process of the hook, publishes and withdraws a guest's port."""
    cgw = on.host.path("/usr/local/bin/cgw")
    program = cgw.read_text()
    cgw.write_text("raise SystemExit('this must not be called')\n")
    try:
        on.call_hook("prepare", "start", "started")
        assert NEIGHBOURS_ANSWER == on.asks(NEIGHBOUR_PORT)
        on.call_hook("stopped", "release")
        assert "refused" == on.asks(NEIGHBOUR_PORT)
    finally:
        cgw.write_text(program)


def test_the_first_commands_of_the_troubleshooting_page_show_that_all_is_well(
    on: AgentHost,
) -> None:
    lines = block("docs/troubleshooting.md#troubleshooting").text.splitlines()
    status, doctor, trace, check, sync, log = (line.replace("web1", GUEST) for line in lines)
    assert "published" in on.shell(status)
    assert " checks passed" in on.shell(doctor)
    command = trace.partition("#")[0]
    assert "the answer went back" in on.shell(f"{command} --probe")  # no client comes in here
    assert f"*:{PORT}/tcp -> " in on.shell(check)
    assert on.shell(sync) == ""
    assert f'guest "{GUEST}": published' in on.shell(log)

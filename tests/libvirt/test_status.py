"""`cgw status` and `cgw check` beside a real libvirt: what its guests' definitions say now."""

import time

import pytest

from cgw_hooks.host.libvirt_library import LONGEST_OPEN, URIS
from tests.lab.network import guest_address
from tests.lab.status_json import read_status
from tests.libvirt.hypervisor import Guest, Hypervisor
from tests.netns.configs import NODE_AMONG_GUESTS

pytestmark = pytest.mark.libvirt

PORT, OTHER_PORT = 8080, 8181
SEEN = f"web1 saw {NODE_AMONG_GUESTS[4]}"


@pytest.fixture
def web1(host: Hypervisor) -> Guest:
    """A running guest that answers."""
    guest = host.guest("web1", f"{PORT}:80")
    guest.start()
    assert host.asks_until_answered(PORT) == SEEN
    assert status(host) == (0, {(PORT, "published")}, set())
    return guest


def status(host: Hypervisor) -> tuple[int, set[tuple[int, str]], set[str]]:
    """Exit code, states by first port (IPv4), and the codes of all problems."""
    ended = host.cgw("status", "--json", check=False)
    said = read_status(ended.stdout)
    rows = [row for row in said["published"] if row["family"] == 4]
    problems = [*(row["problem"] for row in said["published"] if row["problem"]), *said["problems"]]
    states = {(row["listen_ports"][0], row["state"]) for row in rows}
    assert {problem["cure"] for problem in problems} <= {"run: cgw sync"}
    return ended.returncode, states, {problem["code"] for problem in problems}


def edit(guest: Guest, port: int | None, scope: str) -> None:
    """Give a guest another annotation, or none."""
    annotation = (
        f'<publish address="{guest_address(guest.octet)}"><portForward proto="tcp">'
        f'<range start="{port}" to="80"/></portForward></publish>'
    )
    value = ["--set", annotation] if port else ["--remove"]
    guest.virsh("metadata", "urn:cgw-hooks:1", "--key", "cgw", scope, *value)


def test_an_annotation_that_was_changed_is_told_until_a_sync(host: Hypervisor, web1: Guest) -> None:
    """No hook tells of it: the old port stays open, and the new one closed."""
    edit(web1, OTHER_PORT, "--live")
    assert (host.asks(PORT), host.is_closed(OTHER_PORT)) == (SEEN, True)
    assert status(host) == (1, {(PORT, "failed")}, {"definition"})
    host.cgw("sync")
    assert (host.is_closed(PORT), host.asks(OTHER_PORT)) == (True, SEEN)
    assert status(host) == (0, {(OTHER_PORT, "published")}, set())


def test_an_annotation_that_was_taken_out_is_told_until_a_sync(
    host: Hypervisor, web1: Guest
) -> None:
    edit(web1, None, "--live")
    assert host.asks(PORT) == SEEN
    assert status(host) == (1, {(PORT, "failed")}, {"not-running"})
    host.cgw("sync")
    assert host.is_closed(PORT)
    assert status(host) == (0, set(), set())


def test_a_running_guest_that_got_an_annotation_is_told_until_a_sync(host: Hypervisor) -> None:
    guest = host.guest("web1")
    guest.start()
    assert status(host) == (0, set(), set())
    edit(guest, PORT, "--live")
    assert host.is_closed(PORT)
    assert status(host) == (1, {(PORT, "not published")}, {"not-published"})
    host.cgw("sync")
    assert host.asks_until_answered(PORT) == SEEN
    assert status(host) == (0, {(PORT, "published")}, set())


def test_records_that_are_lost_are_told_until_a_sync(host: Hypervisor, web1: Guest) -> None:
    host.shell("rm -r /run/cgw/guests /run/cgw/index")
    assert host.asks(PORT) == SEEN
    code, states, codes = status(host)
    assert (code, states) == (1, {(PORT, "not published")})
    assert codes == {"not-published", "extra-elements"}
    host.cgw("sync")
    assert host.asks(PORT) == SEEN
    assert status(host) == (0, {(PORT, "published")}, set())
    web1.destroy()


def test_a_libvirt_that_does_not_answer_is_no_problem_of_the_ports(
    host: Hypervisor, web1: Guest
) -> None:
    host.node.kill_libvirtd()
    assert host.asks(PORT) == SEEN
    assert status(host) == (0, {(PORT, "published")}, set())
    host.node.start_libvirtd()
    assert web1.is_called("reconnect")


def test_check_of_a_guest_looks_at_the_live_and_the_next_definition(
    host: Hypervisor, web1: Guest
) -> None:
    target = guest_address(web1.octet)
    now = host.cgw("check", "web1").stdout
    assert f"*:{PORT}/tcp -> {target}:80\n" in now
    assert "next start" not in now
    edit(web1, OTHER_PORT, "--config")
    changed = host.cgw("check", "web1").stdout
    assert changed.startswith(now)
    assert f"*:{OTHER_PORT}/tcp -> {target}:80  (from the next start on)\n" in changed
    edit(web1, None, "--live")
    assert host.cgw("check", "web1").stdout == (
        f"nothing is published\n*:{OTHER_PORT}/tcp -> {target}:80  (from the next start on)\n"
    )
    host.cgw("sync")


@pytest.mark.parametrize("subject", ["web9", "./web9", "web9.xml"])
def test_check_of_who_is_not_there_is_exit_code_8(host: Hypervisor, subject: str) -> None:
    ended = host.cgw("check", subject, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (8, "", 1)


@pytest.mark.extended
@pytest.mark.usefixtures("web1")
def test_no_command_waits_without_end_for_a_libvirtd_that_hangs(host: Hypervisor) -> None:
    pid = host.node.path("/run/libvirtd.pid").read_text().strip()
    host.node.run(["kill", "-STOP", pid])
    try:
        for command in (("check", "web1"), ("publish", "web1", f"{OTHER_PORT}:80")):
            ended = host.cgw(*command, check=False)
            assert 7 == ended.returncode
            assert ended.stderr.startswith("cgw: libvirt: it hangs at qemu:///system (no answer")
        begun = time.monotonic()
        shown = host.cgw("status", check=False)
        # Each driver of this daemon hangs, but they are asked side by side.
        assert time.monotonic() - begun < 2 * LONGEST_OPEN
        assert 1 == shown.returncode
        (row,) = (line for line in shown.stdout.splitlines() if f"*:{PORT}/tcp" in line)
        assert row.endswith("published")
        assert [
            f"cgw: libvirt: it hangs at {uri} (no answer within 30 s); "
            "restart it, then run: cgw sync"
            for uri in URIS.values()
        ] == shown.stderr.splitlines()
    finally:
        host.node.run(["kill", "-CONT", pid])
    assert host.cgw("status").stderr == ""
    host.cgw("publish", "web1", f"{OTHER_PORT}:80")
    assert SEEN == host.asks(OTHER_PORT)

"""The hook script itself: whatever is broken behind it, a guest that publishes nothing starts.

The script runs under the real /bin/sh, in a folder of the test's own, with a small
program in the place of ``cgw`` that notes how it was called.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from cgw_hooks.core.operations import ACTIONS
from tests.scripts.script_host import BROKEN, ScriptHost
from tests.unit.builders import HOOK_SCRIPT, OTHER_UUID, UUID, annotated, domain

pytestmark = pytest.mark.scripts

OPERATIONS = [
    "prepare",
    "start",
    "started",
    "stopped",
    "release",
    "migrate",
    "restore",
    "reconnect",
]
PLAIN = domain("")
MENTION = "<publish xmlns=\"urn:cgw-hooks:1\"/> and xmlns:x='urn:cgw-hooks:1'"


class Host(ScriptHost):
    """A folder that stands for /etc/libvirt/hooks, PATH and /run/cgw."""

    def script(self, place: str) -> Path:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HOOK_SCRIPT, path)
        return path

    def run(
        self,
        xml: bytes,
        operation: str = "prepare",
        guest: str | bytes = "web1",
        script: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        script = script or self.script("hooks/qemu.d/50-cgw")
        # The folder of /bin/sh's own error words aside, this is what libvirt does.
        return subprocess.run(
            [script, guest, operation, "begin", "-"],
            input=xml,
            capture_output=True,
            env=self.environment(),
            cwd="/",
            timeout=60,
            check=False,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_plain_guest_never_meets_a_broken_cgw(host: Host, operation: str, how: str) -> None:
    host.breaks_cgw(how)
    done = host.run(PLAIN, operation)
    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_broken_cgw_stops_not_even_a_guest_that_publishes(
    host: Host, operation: str, how: str
) -> None:
    host.breaks_cgw(how)
    done = host.run(annotated(), operation)
    assert (0, b"") == (done.returncode, done.stdout)


@pytest.mark.parametrize(
    "xml",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n", id="a newline"),
        pytest.param(b"\x00\xff<uuid>", id="no XML"),
        pytest.param(domain("<description>" + escape(MENTION, {'"': "&quot;", "'": "&apos;"})
                            + "</description>"), id="a description that mentions us"),
        pytest.param(domain('<x:x xmlns:x="http://libosinfo.org/xmlns/libvirt/domain/1.0"/>'),
                     id="other people's metadata"),
        pytest.param(domain("<!-- urn:cgw-hooks:1 -->"), id="a comment"),
        pytest.param(PLAIN, id="another guest's record"),
        pytest.param(domain("", uuid="../../../../etc/passwd"), id="a path for a uuid"),
        pytest.param(b"<domain><uuid>" + b"a" * 100_000, id="a uuid without end"),
    ],
)  # fmt: skip
def test_cgw_is_not_even_called_for_a_guest_that_publishes_nothing(host: Host, xml: bytes) -> None:
    host.record(f"qemu-{OTHER_UUID}")
    done = host.run(xml)
    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)
    assert [] == host.calls()


def test_cgw_is_called_where_the_guest_has_a_record(host: Host) -> None:
    host.record(f"qemu-{UUID}")
    done = host.run(PLAIN, "stopped")
    assert (0, b"") == (done.returncode, done.stdout)
    assert [["hook", "qemu", "web1", "stopped", "begin", "-"]] == [c["argv"] for c in host.calls()]


def test_a_record_of_another_driver_is_not_the_guests(host: Host) -> None:
    host.record(f"lxc-{UUID}")
    assert 0 == host.run(PLAIN, "stopped").returncode
    assert [] == host.calls()


@pytest.mark.parametrize(
    "xml",
    [
        pytest.param(domain(f"<description>{'a' * 8_000_000}</description>"), id="description"),
        pytest.param(domain(f"<d>{'=&quot;u' * 1_000_000}</d>"), id="nearly the mark"),
        pytest.param(f"<domain><d>{'a' * 8_000_000}</d>".encode() + PLAIN, id="before the uuid"),
        pytest.param(b"<domain><uuid>" + b"a" * 8_000_000, id="no end of uuid"),
    ],
)
def test_twice_what_libvirt_sends_at_most_is_read_in_sane_time(host: Host, xml: bytes) -> None:
    """Libvirt's limit is 4 MiB. What is quadratic would take hours, and `run` waits for 60 s."""
    done = host.run(xml)
    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)
    assert [] == host.calls()


@pytest.mark.parametrize("driver", ["qemu", "lxc", "libxl"])
@pytest.mark.parametrize("place", ["{}.d/50-cgw", "{}.d/99-other-name", "{}"])
def test_the_driver_is_the_folders_or_the_scripts_own_name(
    host: Host, place: str, driver: str
) -> None:
    host.run(annotated(), script=host.script("hooks/" + place.format(driver)))
    assert [driver] == [call["argv"][1] for call in host.calls()]  # type: ignore[index]


def test_the_driver_is_that_of_the_link_and_not_of_its_target(host: Host) -> None:
    target = host.script("usr/share/cgw/qemu.d/50-cgw")
    link = host.root / "hooks/lxc.d/50-cgw"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    folder = host.root / "hooks/libxl.d"
    folder.symlink_to(target.parent)
    single = host.root / "hooks/qemu"
    single.symlink_to(link)
    for script in (link, folder / "50-cgw", single):
        host.run(annotated(), script=script)
    assert ["lxc", "libxl", "qemu"] == [c["argv"][1] for c in host.calls()]  # type: ignore[index]


@pytest.mark.parametrize(
    "name",
    [
        *("web1", "we'b\"1", "a b  c", "a\nb\n", "wéb-网-🦊", "-n", "--help", "$(id)", "*"),
        *("\\t%s", "x" * 200),
    ],
)
def test_arguments_and_xml_reach_cgw_byte_for_byte(host: Host, name: str) -> None:
    xml = annotated(name=escape(name)) + b"<!-- \\n %s $x `id` \xff\xfe -->"
    host.run(xml, guest=name.encode())
    call = host.calls()[0]
    assert ["hook", "qemu", name, "prepare", "begin", "-"] == call["argv"]
    assert xml == str(call["stdin"]).encode("latin-1")


@pytest.mark.parametrize("status", [3, 4])
def test_prepare_passes_a_refusal_on_with_its_reason(host: Host, status: int) -> None:
    host.records_calls(status)
    done = host.run(annotated(), "prepare")
    assert (status, b"", b"the reason\n") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("status", [0, 1, 2, 5, 6, 7, 126, 127, 137, 255])
def test_prepare_lets_the_guest_start_after_any_other_failure(host: Host, status: int) -> None:
    host.records_calls(status)
    done = host.run(annotated(), "prepare")
    assert (0, b"") == (done.returncode, done.stdout)
    assert 1 == len(host.calls())


@pytest.mark.parametrize("operation", sorted(ACTIONS.keys() - {"prepare"}))
@pytest.mark.parametrize("status", [1, 3, 4, 127])
def test_every_other_operation_ends_well(host: Host, operation: str, status: int) -> None:
    host.records_calls(status)
    done = host.run(annotated(), operation)
    assert (0, b"") == (done.returncode, done.stdout)
    assert 1 == len(host.calls())


@pytest.mark.parametrize(
    "operation", [*sorted(set(OPERATIONS) - ACTIONS.keys()), "prepared", "", "*"]
)
def test_cgw_is_not_even_called_for_an_operation_without_action(host: Host, operation: str) -> None:
    done = host.run(annotated(), operation)
    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)
    assert [] == host.calls()


def test_the_script_is_posix_shell_and_executable() -> None:
    assert os.access(HOOK_SCRIPT, os.X_OK)
    assert HOOK_SCRIPT.read_text(encoding="ascii").startswith("#!/bin/sh\n")
    checked = subprocess.run(["/bin/sh", "-n", HOOK_SCRIPT], capture_output=True, check=False)
    assert (0, b"") == (checked.returncode, checked.stderr)

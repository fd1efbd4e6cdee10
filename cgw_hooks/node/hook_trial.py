"""Calls the installed hook as libvirt will call it, to find what prevents it from working.

libvirt drops the output of a hook unless the hook fails, and this hook must not fail. So a fault
would only appear in syslog, when the first guest is not published. ``cgw install`` therefore
calls the hook once, with a temporary runtime directory and network namespace: nothing is
published.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import InvalidAnnotation, InvalidConfig, PortConflict, quoted
from cgw_hooks.host import confinement, paths
from cgw_hooks.host.config_file import load_config
from cgw_hooks.host.own_network import own_network

_GUEST = "cgw-install-test"
_UUID = "c9000000-0000-4000-8000-00000000cafe"
#: Addresses for documentation (RFC 5737), which no guest has.
_LINKS = """\
link add cgwtest0 type bridge
address add 192.0.2.1/24 dev cgwtest0
link set cgwtest0 up
"""
_ANNOTATION = (
    '<metadata><publish xmlns="urn:cgw-hooks:1" address="192.0.2.2">'
    '<portForward proto="tcp"><range start="8080" to="80"/></portForward></publish></metadata>'
)
_DOMAIN = f"<domain type='kvm'><name>{_GUEST}</name><uuid>{_UUID}</uuid>%s</domain>"
_PLAIN, _ANNOTATED = (_DOMAIN % "").encode(), (_DOMAIN % _ANNOTATION).encode()
#: The variables that libvirt passes to a hook (docs/hooks.rst), with systemd's PATH.
_ENVIRONMENT = {
    "HOME": "/root",
    "LC_ALL": "C",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
#: A hook call has no deadline of its own; a host may be slow.
_LONGEST_CALL = 60.0
_REFUSED = (InvalidAnnotation.exit_code, PortConflict.exit_code)


class _Trial(NamedTuple):
    hook: Path
    runtime: str
    profile: str  # AppArmor's; empty: unconfined

    def call(self, operation: str, xml: bytes) -> subprocess.CompletedProcess[bytes]:
        enter: Callable[[], None] | None = None
        if self.profile:
            enter = self._enter_profile
        return subprocess.run(  # noqa: S603  (the hook that cgw install has just written)
            [self.hook, _GUEST, operation, "begin", "-"],
            input=xml,
            env={
                **_ENVIRONMENT,
                "CGW_RUNTIME_DIR": self.runtime,
                # The file does not exist: this node's policy could refuse the test guest.
                "CGW_CONFIG": os.path.join(self.runtime, "cgw.toml"),
                "CGW_ERRORS_TO_STDERR": "1",
            },
            cwd="/", capture_output=True, check=False, timeout=_LONGEST_CALL, preexec_fn=enter,
        )  # fmt: skip

    def _enter_profile(self) -> None:
        confinement.enter_profile_at_exec(self.profile)


def obstacle(hook: Path, python: str, *, sys_folder: Path = Path("/sys")) -> str:
    """Return what prevents this host's libvirt from publishing through the hook, and the cure.

    The text is one line, empty if nothing does. ``sys_folder`` is the mount point of the
    kernel's /sys.
    """
    if confinement.does_selinux_hold_hooks(sys_folder):
        return (
            "SELinux keeps libvirt's hooks from publishing anything; "
            "run: setsebool -P virt_hooks_unconfined on"
        )
    try:
        load_config(paths.config_file())
    except InvalidConfig as error:
        return str(error)
    if failure := _failure(hook, profile=""):
        return f"{failure}; {_cure(failure, python)}"
    for profile in confinement.enforced_profiles(sys_folder):
        if failure := _failure(hook, profile=profile):
            return f"AppArmor's profile {profile} prevents it: {failure}; {_CURE_APPARMOR}"
    return ""


def obstacle_to_plain_guests(hook: Path) -> str:
    """Do the same for a hook below another root, but only the part without cgw and libvirt."""
    with tempfile.TemporaryDirectory(prefix="cgw-install-") as runtime:
        return _failure_of_plain_guest(_Trial(hook, runtime, profile=""))


_CURE_APPARMOR = (
    "it lets hooks run programs of /usr/bin only: install cgw with the Python of /usr/bin "
    "(make install, or: /usr/bin/python3 -m venv)"
)


def _failure(hook: Path, *, profile: str) -> str:
    with (
        tempfile.TemporaryDirectory(prefix="cgw-install-") as runtime,
        own_network(_LINKS) as is_alone,
    ):
        trial = _Trial(hook, runtime, profile)
        try:
            return _failure_of_plain_guest(trial) or _failure_of_publishing(trial, is_alone)
        except subprocess.TimeoutExpired:
            return f"{hook}: did not end within {_LONGEST_CALL:.0f} s"
        except (OSError, subprocess.SubprocessError) as error:
            return f"{hook}: cannot be run: {error}"


def _failure_of_plain_guest(trial: _Trial) -> str:
    """Check that the hook exits with 0 for a plain guest: else libvirt would not start it."""
    done = trial.call("prepare", _PLAIN)
    if (done.returncode, done.stdout, done.stderr) == (0, b"", b""):
        return ""
    return f"a guest that publishes nothing: {_said(done)}"


def _failure_of_publishing(trial: _Trial, is_alone: bool) -> str:
    done = trial.call("prepare", _ANNOTATED)
    if done.returncode in _REFUSED:
        return ""  # refused, since the test guest's network could not be made: the hook works
    if done.returncode or done.stderr or not _has_record(trial):
        return f"the hook reserves no port: {_said(done)}"
    if is_alone:  # in the host's own network, this would open a port of the host
        done = trial.call("started", _ANNOTATED)
        if done.returncode or done.stderr:
            return f"the hook opens no port: {_said(done)}"
    return ""


def _has_record(trial: _Trial) -> bool:
    return os.path.exists(paths.record_file(trial.runtime, f"qemu-{_UUID}"))


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last line of the output; in a traceback that is the error."""
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").split("\n")
    last = [line for line in lines if line.strip()][-1:] or [f"it ended with {done.returncode}"]
    return quoted(last[0], limit=400)[1:-1]


def _cure(failure: str, python: str) -> str:
    missing = re.search(r"No module named '(\w+)", failure)
    if missing and missing[1] in {"lxml", "nftables"}:
        return (
            f"install it for {python} (Debian: apt install python3-{missing[1]}), "
            "then run: cgw install"
        )
    if missing:
        return "install cgw-hooks again, then run: cgw install"
    return "correct that, then run: cgw install"

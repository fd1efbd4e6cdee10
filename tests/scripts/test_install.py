"""`cgw install` and `cgw uninstall` in a folder that becomes a root: ours comes and goes alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.builders import CGW, PYTHON, ROOT, is_one_line

pytestmark = pytest.mark.scripts

HOOKS = [f"etc/libvirt/hooks/{driver}.d/50-cgw" for driver in ("lxc", "libxl", "qemu")]
CLIENT = ROOT / "cgw_hooks/agent/client.pl"
XEN = ["etc/xen/scripts/vif-cgw", "etc/xen/scripts/vif-post.d/cgw.hook"]
UNITS = [
    f"etc/systemd/system/{name}"
    for name in (
        "cgw-node.service", "cgw-resync.service", "cgw-sync.service", "cgw.service",
        "cgw-resync.path", "cgw-conntrackd.service",
    )
]  # fmt: skip
EXAMPLE = "etc/cgw/cgw.toml.example"
OURS = sorted([*HOOKS, *UNITS, EXAMPLE])

#: What may be on a host before: others' hooks, a config, other scripts of Xen.
THEIRS = {
    "etc/libvirt/hooks/qemu": "#!/bin/sh\n# somebody's\n",
    "etc/libvirt/hooks/qemu.d/10-other": "#!/bin/sh\n# somebody's\n",
    "etc/libvirt/hooks/network.d/50-cgw.bak": "",
    "etc/cgw/cgw.toml": "[node]\nname = 'node1'\n",
    "etc/systemd/system/other.service": "[Unit]\n",
    "etc/xen/scripts/vif-bridge": "#!/bin/bash\n",
}
#: What the unit of the agent makes.
STATE = "var/lib/cgw"
FAILED = 6
RECORDER = "import sys; open({called!r}, 'w').write(' '.join(sys.argv[1:]))\n"


@dataclass(frozen=True)
class Host:
    """A root folder, and cgw called with it."""

    root: Path

    def cgw(self, *arguments: str, program: Path = CGW) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments, "--root", self.root],
            capture_output=True, text=True, check=False, cwd="/", timeout=60,
        )  # fmt: skip

    def done(self, *arguments: str, program: Path = CGW) -> list[str]:
        """Run it to a good end; the lines that it printed."""
        ended = self.cgw(*arguments, program=program)
        assert (0, "") == (ended.returncode, ended.stderr)
        return ended.stdout.splitlines()

    def refused(self, *arguments: str, program: Path = CGW) -> str:
        """Run it to its one line of error."""
        ended = self.cgw(*arguments, program=program)
        line = ended.stderr.removeprefix("cgw: ").removesuffix("\n")
        assert FAILED == ended.returncode
        assert is_one_line(line)
        return line

    def has(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def files(self) -> dict[str, tuple[str, int]]:
        """Path -> content and mode."""
        return {
            str(path.relative_to(self.root)): (
                path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777,
            )
            for path in sorted(self.root.rglob("*")) if path.is_file()
        }  # fmt: skip


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "root").mkdir()
    return Host(tmp_path / "root")


def test_hooks_of_every_driver_the_unit_and_an_example_are_put_in_place(host: Host) -> None:
    lines = host.done("install")
    assert OURS == sorted(host.files())
    assert OURS == sorted(line.split(f"{host.root}/")[1] for line in lines[: len(OURS)])
    assert f"tested {host.root / HOOKS[2]}" in lines
    assert "systemctl try-reload-or-restart libvirtd" in lines[-3]
    assert lines[-2].endswith("systemctl enable --now cgw")
    assert lines[-1].endswith("systemctl enable --now cgw-sync")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_modes_are_right_under_any_umask(host: Host, umask: int) -> None:
    before = os.umask(umask)
    try:
        host.done("install", "--xen")
    finally:
        os.umask(before)
    modes = {name: mode for name, (_, mode) in host.files().items()}
    expected = dict.fromkeys([*HOOKS, *XEN], 0o755) | dict.fromkeys([*UNITS, EXAMPLE], 0o644)
    assert expected == modes


def test_the_files_call_the_cgw_that_installed_them(host: Host) -> None:
    host.done("install", "--xen")
    files = host.files()
    for name in [*HOOKS, *XEN]:
        text, _ = files[name]
        assert text.count(f"python='{PYTHON}' cgw='{CGW}'") == 1
        assert "cgw=cgw" not in text
        subprocess.run(["sh", "-n", host.root / name], check=True)
    node, _, sync, agent, *_ = (files[unit][0] for unit in UNITS)
    assert f"ExecStart={CGW} agent\n" in agent
    assert f"ExecStart={CGW} sync\n" in sync
    assert f"ExecReload={CGW} sync --settle\n" in sync
    assert f"ExecStart={CGW} node up\nExecReload={CGW} node up\n" in node
    assert f"ExecStop={CGW} node down\n" in node
    # But for the one line, they are what is in the package.
    source = (ROOT / "hooks/qemu.d/50-cgw").read_text(encoding="utf-8")
    written = f"='{PYTHON}' cgw='{CGW}' client='{CLIENT}'\n"
    assert source.replace("= cgw=cgw client=\n", written) == files[HOOKS[0]][0]
    assert (ROOT / "etc/cgw.toml").read_text(encoding="utf-8") == files[EXAMPLE][0]


@pytest.mark.parametrize("folder", ["opt", "wéb", "a+b,c;d"])
def test_the_hook_calls_it_there(host: Host, tmp_path: Path, folder: str) -> None:
    other = tmp_path / folder / "cgw"
    other.parent.mkdir()
    shutil.copy(CGW, other)
    host.done("install", program=other)
    called = tmp_path / "called"
    other.write_text(RECORDER.format(called=str(called)), encoding="utf-8")
    subprocess.run(
        [host.root / HOOKS[2], "web1", "started", "begin", "-"],
        input='<publish xmlns="urn:cgw-hooks:1"/>', text=True, check=True,
    )  # fmt: skip
    assert "hook qemu web1 started begin -" == called.read_text(encoding="utf-8")


def test_the_hook_runs_an_interpreter_and_never_the_launcher_itself(
    host: Host, tmp_path: Path
) -> None:
    """Debian's AppArmor profile of libvirtd denies a hook to run a file of /usr/local/bin.

    What may not be run is here a file without the permission to; the hook gets the same error.
    """
    other = tmp_path / "cgw"
    shutil.copy(CGW, other)
    host.done("install", program=other)
    called = tmp_path / "called"
    other.write_text(RECORDER.format(called=str(called)), encoding="utf-8")
    other.chmod(0o644)
    subprocess.run(
        [host.root / HOOKS[2], "web1", "started", "begin", "-"],
        input='<publish xmlns="urn:cgw-hooks:1"/>', text=True, check=True,
    )  # fmt: skip
    assert called.exists()


@pytest.mark.parametrize("folder", ["it's", 'a"b', "a b", "$HOME", "100%", "a\\b", "a\nb"])
def test_a_path_that_sh_or_systemd_would_read_otherwise_is_refused(
    host: Host, tmp_path: Path, folder: str
) -> None:
    other = tmp_path / folder / "cgw"
    other.parent.mkdir()
    shutil.copy(CGW, other)
    assert "call install by the path of cgw itself" in host.refused("install", program=other)
    assert {} == host.files()


def test_install_may_be_repeated_and_brings_ours_up_to_date(host: Host) -> None:
    host.done("install", "--xen")
    files = host.files()
    old = "#!/bin/sh\n# cgw-hooks, as an earlier version had it\n"
    host.has({HOOKS[2]: old, XEN[0]: old, UNITS[0]: old})
    host.done("install", "--xen")
    assert files == host.files()


def test_everybody_elses_files_stay_through_install_and_uninstall(host: Host) -> None:
    host.has(THEIRS)
    before = host.files()
    host.done("install", "--xen")
    assert sorted([*OURS, *XEN, *THEIRS]) == sorted(host.files())
    assert before == {name: host.files()[name] for name in THEIRS}
    host.done("uninstall")
    assert before == host.files()


@pytest.mark.parametrize("place", [*OURS, *XEN])
def test_a_file_of_somebody_elses_at_our_place_is_neither_overwritten_nor_removed(
    host: Host, place: str
) -> None:
    host.has({place: "#!/bin/sh\n# somebody's\n"})
    line = host.refused("install", "--xen")
    assert f"{host.root / place}: the file exists and is not from cgw; move it away first" == line
    lines = host.done("uninstall")
    assert f"kept  {host.root / place} (not from cgw)" in lines
    assert {place: ("#!/bin/sh\n# somebody's\n", 0o644)} == host.files()


@pytest.mark.parametrize("kind", ["link to nothing", "link to theirs", "folder", "not text"])
def test_nor_is_what_is_no_plain_file(host: Host, tmp_path: Path, kind: str) -> None:
    place = host.root / HOOKS[2]
    place.parent.mkdir(parents=True)
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"\xff\xfe theirs")
    if kind == "folder":
        place.mkdir()
    elif kind == "not text":
        shutil.copy(theirs, place)
    else:
        place.symlink_to(theirs if kind == "link to theirs" else tmp_path / "none")
    assert "is not from cgw" in host.refused("install")
    host.done("uninstall")
    assert os.path.lexists(place)
    assert b"\xff\xfe theirs" == theirs.read_bytes()


def test_uninstall_leaves_nothing(host: Host) -> None:
    host.done("install", "--xen")
    host.has({f"{STATE}/registry-snapshot.json": "the agent's"})
    lines = host.done("uninstall")
    assert sorted([*OURS, *XEN, STATE]) == sorted(line.split(f"{host.root}/")[1] for line in lines)
    left = {path.name for path in host.root.rglob("*")}
    assert left <= {"etc", "libvirt", "hooks", "xen", "scripts", "systemd", "system", "var", "lib"}
    assert [] == host.done("uninstall")


def test_an_interrupted_install_is_finished_by_the_next(host: Host) -> None:
    host.done("install")
    files = host.files()
    (host.root / HOOKS[0]).unlink()
    host.has({f"{Path(HOOKS[2]).parent}/.50-cgw.new": "half of"})
    host.done("install")
    assert files == host.files()


def test_the_installed_hook_lets_a_plain_guest_start_where_cgw_is_gone(host: Host) -> None:
    """After `make uninstall` without `cgw uninstall`."""
    host.done("install")
    hook = host.root / HOOKS[2]
    hook.write_text(hook.read_text(encoding="utf-8").replace(str(CGW), "/none/cgw"), "utf-8")
    ended = subprocess.run(
        [hook, "web1", "prepare", "begin", "-"],
        input=b"<domain/>",
        capture_output=True,
        check=False,
    )
    assert (0, b"", b"") == (ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    """A DESTDIR that holds what `make install` puts there, and what that cgw installs."""
    make("install", tmp_path)
    ended = Host(tmp_path).cgw("install", "--xen")
    assert 0 == ended.returncode
    for place in [*HOOKS, *XEN, *UNITS]:  # as the cgw of that place would have written it
        text = (tmp_path / place).read_text(encoding="utf-8")
        (tmp_path / place).write_text(text.replace(str(CGW), "/usr/local/bin/cgw"), "utf-8")
    return tmp_path


def make(target: str, destination: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-C", ROOT, target, f"DESTDIR={destination}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("left", [HOOKS[1], XEN[0], UNITS[2]])
def test_make_uninstall_refuses_while_something_calls_cgw(destination: Path, left: str) -> None:
    for place in {*HOOKS, *XEN, *UNITS} - {left}:
        (destination / place).unlink()
    ended = make("uninstall", destination)
    assert 0 != ended.returncode
    assert left in ended.stderr
    assert "run first: cgw uninstall" in ended.stderr
    assert (destination / "usr/local/bin/cgw").exists()
    assert (destination / "usr/local/lib/cgw/cgw_hooks").is_dir()


def test_make_uninstall_takes_cgw_away_once_nothing_calls_it(destination: Path) -> None:
    Host(destination).done("uninstall")
    pages = destination / "usr/local/share/man"
    assert "PUBLISH" in (pages / "man1/cgw-publish.1").read_text(encoding="utf-8").upper()
    assert (pages / "man7/cgw-annotation.7").is_file()
    assert (destination / "usr/local/lib/cgw/cgw_hooks/schemas/annotation.rng").is_file()
    assert 0 == make("uninstall", destination).returncode
    assert [] == [path for path in (destination / "usr").rglob("*") if path.is_file()]


def test_make_uninstall_does_not_mind_hooks_of_another_install(destination: Path) -> None:
    """A host may have the package as well."""
    for place in [*HOOKS, *XEN, *UNITS]:
        text = (destination / place).read_text(encoding="utf-8")
        (destination / place).write_text(text.replace("/usr/local/bin", "/usr/bin"), "utf-8")
    assert 0 == make("uninstall", destination).returncode
    assert not (destination / "usr/local/bin/cgw").exists()


def test_the_readme_has_all_packages_installed_that_cgw_runs_on() -> None:
    """Whoever follows it has a Python already."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"^sudo apt install (\w.+)$", readme, flags=re.MULTILINE)
    lines = (ROOT / "APT_PACKAGES").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if not line.startswith("#")} == {"python3", *named.split()}

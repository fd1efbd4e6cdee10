"""`cgw install` tests its own hook: it says what keeps the hook from publishing, and the cure.

The hook, its interpreter and its network are real. Only what SELinux says is a folder of the test's
own: this tier cannot boot a kernel that enforces it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cgw_hooks.host import confinement
from cgw_hooks.node import hook_trial
from tests.unit.builders import CGW, PYTHON, ROOT, is_one_line

pytestmark = pytest.mark.scripts

HOOK = "etc/libvirt/hooks/qemu.d/50-cgw"
LAUNCHER = """\
import sys
sys.path.insert(0, {package!r})
from cgw_hooks.commands.cli import main
sys.exit(main())
"""


class Installed:
    """An install below a folder, with a launcher and an interpreter of the test's own."""

    def __init__(self, folder: Path, python: Path = PYTHON) -> None:
        self.folder = folder
        self.python = python
        self.launcher = folder / "cgw"
        self.package = folder / "lib"
        self.package.mkdir()
        (self.package / "cgw_hooks").symlink_to(ROOT / "cgw_hooks")
        text = LAUNCHER.format(package=str(self.package))
        self.launcher.write_text(f"#!{python} -I\n{text}", encoding="utf-8")
        self.launcher.chmod(0o755)
        # By an interpreter that has all packages: what is tested is the hook that it writes.
        subprocess.run(
            [PYTHON, "-I", self.launcher, "install", "--root", folder], check=True,
            capture_output=True,
        )  # fmt: skip
        self.hook = folder / HOOK
        text = self.hook.read_text(encoding="utf-8")
        self.hook.write_text(text.replace(f"'{PYTHON}'", f"'{python}'"), encoding="utf-8")

    def obstacle(self, sys_folder: Path = Path("/sys")) -> str:
        """The one line."""
        return hook_trial.obstacle(self.hook, str(self.python), sys_folder=sys_folder)


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def test_nothing_stands_in_the_way_of_a_good_install(installed: Installed) -> None:
    assert "" == installed.obstacle()


def test_the_test_publishes_nothing_on_this_host(installed: Installed) -> None:
    records = Path("/run/cgw")
    before = sorted(records.rglob("*")), our_table()
    assert "" == installed.obstacle()
    assert before == (sorted(records.rglob("*")), our_table())
    assert not Path("/sys/class/net/cgwtest0").exists()


def our_table() -> str:
    listed = ["nft", "list", "table", "inet", "cgw"]
    return subprocess.run(listed, capture_output=True, text=True, check=False).stdout


def test_a_python_without_lxml_is_named_with_the_package_that_it_lacks(tmp_path: Path) -> None:
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    line = Installed(tmp_path, tmp_path / "v/bin/python").obstacle()
    assert is_one_line(line)
    assert "the hook reserves no port: " in line
    assert "No module named 'lxml'" in line
    assert f"install it for {tmp_path}/v/bin/python (Debian: apt install python3-lxml)" in line


def test_a_python_without_the_nftables_binding_is_noticed_as_well(tmp_path: Path) -> None:
    """Only what opens the port needs it; so the test goes that far."""
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    (site,) = (tmp_path / "v/lib").glob("python3*/site-packages")
    lxml = subprocess.run(
        [PYTHON, "-c", "import lxml; print(lxml.__path__[0])"], check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    (site / "lxml").symlink_to(lxml.stdout.strip())
    line = Installed(tmp_path, tmp_path / "v/bin/python").obstacle()
    assert "the hook opens no port: " in line
    assert "apt install python3-nftables" in line


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("its launcher is gone", "cgw does not exist; install cgw again"),
        ("its package is gone", "No module named 'cgw_hooks'; install cgw-hooks again"),
        ("its interpreter is gone", "not found"),
        ("its interpreter may not be run", "Permission denied"),
        ("the hook may not be run", "Permission denied"),
        ("the hook is broken", "a guest that publishes nothing: "),
    ],
)
def test_what_is_broken_is_said_in_one_line(tmp_path: Path, fault: str, said: str) -> None:
    python = tmp_path / "python"
    shutil.copy("/bin/true", python)
    # The one of /usr/bin knows no cgw_hooks but the launcher's.
    installed = Installed(tmp_path, python if "interpreter" in fault else Path("/usr/bin/python3"))
    match fault:
        case "its launcher is gone":
            installed.launcher.unlink()
        case "its package is gone":
            (installed.package / "cgw_hooks").unlink()
        case "its interpreter is gone":
            python.unlink()
        case "its interpreter may not be run":
            python.chmod(0o644)
        case "the hook may not be run":
            installed.hook.chmod(0o644)
        case _:
            installed.hook.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    line = installed.obstacle()
    assert is_one_line(line)
    assert said in line
    assert line.endswith("then run: cgw install")


def test_a_hook_that_harms_plain_guests_is_refused_below_another_root_too(
    installed: Installed,
) -> None:
    assert "" == hook_trial.obstacle_to_plain_guests(installed.hook)
    installed.hook.write_text("#!/bin/sh\necho oops\n", encoding="utf-8")
    assert "a guest that publishes nothing: oops" == hook_trial.obstacle_to_plain_guests(
        installed.hook
    )


@pytest.mark.parametrize(
    ("enforce", "boolean", "holds"),
    [("1", "0 0", True), ("1", "0 1", True), ("1", "1 1", False), ("0", "0 0", False)],
)
def test_selinux_is_named_with_its_cure(
    installed: Installed, tmp_path: Path, enforce: str, boolean: str, holds: bool
) -> None:
    """The form of the two files is that of security/selinux/selinuxfs.c."""
    folder = tmp_path / "sys/fs/selinux"
    (folder / "booleans").mkdir(parents=True)
    (folder / "enforce").write_text(enforce, encoding="ascii")
    (folder / "booleans/virt_hooks_unconfined").write_text(boolean, encoding="ascii")
    line = installed.obstacle(tmp_path / "sys")
    assert holds == ("run: setsebool -P virt_hooks_unconfined on" in line)
    assert holds or not line


def test_a_policy_without_that_boolean_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "fs/selinux").mkdir(parents=True)
    (tmp_path / "fs/selinux/enforce").write_text("1", encoding="ascii")
    assert not confinement.does_selinux_hold_hooks(tmp_path)


@pytest.mark.parametrize("program", [CGW, "/usr/local/bin/cgw", "/opt/python/bin/python3"])
def test_a_program_elsewhere_is_none_that_apparmor_lets_hooks_run(program: str) -> None:
    assert not confinement.may_be_run_by_hooks(program)


def test_a_venvs_link_to_the_python_of_usr_bin_is_one() -> None:
    assert confinement.may_be_run_by_hooks("/usr/bin/python3")
    assert PYTHON.is_symlink()
    assert confinement.may_be_run_by_hooks(str(PYTHON))

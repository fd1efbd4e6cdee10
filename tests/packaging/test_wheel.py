"""The wheel in a venv: `cgw install` pins the hooks to the interpreter of this venv."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.domain import domain_xml
from tests.packaging.built import Built

pytestmark = pytest.mark.packaging

XML = domain_xml("web1", octet=1, publish='<cgw:portForward proto="none"/>')
INVALID_ANNOTATION = 3


@pytest.fixture(scope="module")
def venv(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv of Debian's Python, with the wheel, and the distribution's bindings."""
    folder = tmp_path_factory.mktemp("wheel") / "venv"
    options = ("--system-site-packages", "--without-pip")  # the pip of the tests is faster there
    made = run("/usr/bin/python3", "-m", "venv", *options, folder)
    assert 0 == made.returncode, made.stderr
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin/python3")
    installed = run(*pip, "install", "--quiet", "--no-input", built.wheel)
    assert 0 == installed.returncode, installed.stderr
    return folder


def run(*argv: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, input=given, capture_output=True, text=True, check=False, cwd="/")


def test_it_is_the_version_of_the_sources(venv: Path, built: Built) -> None:
    assert f"cgw {built.version}\n" == run(venv / "bin/cgw", "--version").stdout


def test_the_hooks_call_the_interpreter_of_the_venv(venv: Path, tmp_path: Path) -> None:
    done = run(venv / "bin/cgw", "install", "--xen", "--root", tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    hook = tmp_path / "etc/libvirt/hooks/qemu.d/50-cgw"
    (client,) = venv.glob("lib/python3*/site-packages/cgw_hooks/agent/client.pl")
    assert (
        f"python='{venv}/bin/python3' cgw='{venv}/bin/cgw' client='{client}'\n" in hook.read_text()
    )
    unit = (tmp_path / "etc/systemd/system/cgw.service").read_text()
    assert f"ExecStart={venv}/bin/cgw agent\n" in unit
    # The hook runs this cgw: it refuses the annotation, as it names an unknown protocol.
    called = run(hook, "web1", "prepare", "begin", "-", given=XML)
    assert (INVALID_ANNOTATION, "") == (called.returncode, called.stdout)
    assert "web1" in called.stderr


def test_uninstall_removes_what_it_has_installed(venv: Path, tmp_path: Path) -> None:
    assert 0 == run(venv / "bin/cgw", "install", "--xen", "--root", tmp_path).returncode
    assert 0 == run(venv / "bin/cgw", "uninstall", "--root", tmp_path).returncode
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]

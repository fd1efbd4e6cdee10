"""The shells complete commands, names of guests and published ports, in real shells."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.builders import ROOT

pytestmark = pytest.mark.scripts

FOLDER = ROOT / "etc/completion"
#: In place of cgw, which would ask libvirt (tests/libvirt has the real one).
CGW = """\
#!/bin/sh
case $* in
"complete names") printf '%s\\n' web1 web2 'my guest' ;;
"complete ports web1") printf '%s\\n' 8080/tcp 5353/udp ;;
*) exit 2 ;;
esac
"""
BASH = """
source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cgw
[ ${#COMPREPLY[@]} = 0 ] || printf '%s\\n' "${COMPREPLY[@]}"
"""
#: Command line -> what completes its last word.
CASES = {
    "cgw unp": ["unpublish"],
    "cgw publish w": ["web1", "web2"],
    "cgw publish --for 2h w": ["web1", "web2"],
    "cgw unpublish --live web1 8": ["8080/tcp"],
    "cgw doctor w": ["web1", "web2"],
    "cgw doctor --verb": ["--verbose"],
    "cgw status w": ["web1", "web2"],
    "cgw unpublish web1 8": ["8080/tcp"],
    "cgw node u": ["up"],
    "cgw registry f": ["forget"],
    "cgw registry status --j": ["--json"],
    "cgw status --clu": ["--cluster"],
    "cgw publish web1 --dry": ["--dry-run"],
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The stand-in is found first."""
    (tmp_path / "cgw").write_text(CGW)
    (tmp_path / "cgw").chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}


def run(environment: dict[str, str], *command: str) -> list[str]:
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(("line", "expected"), CASES.items())
def test_bash(environment: dict[str, str], line: str, expected: list[str]) -> None:
    assert expected == run(environment, "bash", "-c", BASH, str(FOLDER / "cgw.bash"), *line.split())


def test_bash_completes_after_an_option_with_an_equals_sign(environment: dict[str, str]) -> None:
    """Bash gives the sign as a word of its own."""
    words = ("cgw", "publish", "--source", "=", "10.0.0.0/8", "w")
    found = run(environment, "bash", "-c", BASH, str(FOLDER / "cgw.bash"), *words)
    assert found == ["web1", "web2"]


def test_bash_quotes_a_name_with_a_blank(environment: dict[str, str]) -> None:
    found = run(environment, "bash", "-c", BASH, str(FOLDER / "cgw.bash"), "cgw", "publish", "my")
    assert found == ["my\\ guest"]


@pytest.mark.parametrize(
    ("line", "expected"), [case for case in CASES.items() if "--for" not in case[0]]
)
def test_fish(environment: dict[str, str], line: str, expected: list[str]) -> None:
    script = f"source {FOLDER}/cgw.fish; complete -C '{line}'"
    found = run(environment, "fish", "--no-config", "-c", script)
    assert expected == sorted(word.partition("\t")[0] for word in found)


def test_zsh_can_read_its_file(environment: dict[str, str]) -> None:
    assert run(environment, "zsh", "-fn", str(FOLDER / "_cgw")) == []

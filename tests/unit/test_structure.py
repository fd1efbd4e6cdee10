"""The shape of the package: imports run inward, and a hook call loads no more than it needs."""

from __future__ import annotations

import ast
import os
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.unit.builders import PYTHON, ROOT, annotated, domain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit

PACKAGE = "cgw_hooks"
MODULES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).rglob("*.py"))

#: What each ring may import of the package, itself aside.
INWARD = {
    "errors": set[str](),
    "core": {"core", "errors"},
    "host": {"core", "errors", "host.runtime_directory", "host.paths"},
    "commands": {"core", "errors", "host", "commands"},
}
HEAVY = {"pyroute2", "libvirt", "asyncio", "argparse", "rich", "logging", "subprocess", "pathlib"}
NOT_FOR_PLAIN_GUESTS = {"lxml", "typing", "enum", "json", "dataclasses", "ipaddress", "tomllib"}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Every import of a module, also late ones and those for type checkers."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def is_within(name: str, allowed: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in allowed)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_inward_only(module: str) -> None:
    ring = module.removeprefix(f"{PACKAGE}/").removesuffix(".py").partition("/")[0]
    allowed = INWARD.get(ring, {"commands.cli", "__version__"})
    ours = [name.partition(".")[2] for name in imports(module) if name.startswith(PACKAGE + ".")]
    if ring == "commands":
        ours = [name for name in ours if name != "__version__"]
    assert [] == [name for name in ours if not is_within(name, allowed)]


def test_only_the_domain_reader_imports_lxml() -> None:
    users = [module for module in MODULES if any(is_within(i, {"lxml"}) for i in imports(module))]
    assert [f"{PACKAGE}/core/domain_xml.py"] == users


@pytest.mark.parametrize(
    ("library", "users"),
    [
        ("libvirt", ["host/hypervisor.py"]),
        ("nftables", ["host/nft.py"]),
        ("syslog", ["host/log.py"]),
        ("argparse", ["commands/terminal.py"]),
        ("rich", ["commands/status_table.py"]),
        ("tomllib", ["core/config.py"]),
        ("fcntl", ["host/runtime_directory.py"]),
    ],
)
def test_each_outside_thing_has_one_module(library: str, users: list[str]) -> None:
    found = [module for module in MODULES if any(is_within(i, {library}) for i in imports(module))]
    assert [f"{PACKAGE}/{user}" for user in users] == found


def test_the_core_does_no_io() -> None:
    effects = {"os", "socket", "subprocess", "time", "pathlib", "shutil", "sys", "syslog", "fcntl"}
    core = [module for module in MODULES if module.startswith(f"{PACKAGE}/core/")]
    assert len(core) > 5
    assert {} == {m: e for m in core if (e := {i for i in imports(m) if is_within(i, effects)})}
    calls = [n for m in core for n in ast.walk(tree(m)) if isinstance(n, ast.Call)]
    names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    assert set() == names & {"open", "print", "input", "exec", "eval", "__import__"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_stays_short(module: str) -> None:
    assert len((ROOT / module).read_text(encoding="utf-8").splitlines()) < 300


@pytest.mark.parametrize("module", MODULES)
def test_a_function_stays_short(module: str) -> None:
    functions = [
        node
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {} == {name: length for name, length in lengths.items() if length > 40}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(tree(module))


def loaded_by_a_hook_call(tmp_path: Path, xml: bytes, operation: str) -> set[str]:
    """The modules that one call of the hook's path loads, by their first name."""
    program = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1]); "
        "from cgw_hooks.commands.hook import main; "
        f"code = main(['qemu', 'web1', {operation!r}, 'begin', '-']); "
        "print(code, *{m.partition('.')[0] for m in set(sys.modules) - before})"
    )
    runtime = str(tmp_path / "run")
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-c", program, str(ROOT)] if not annotated_needs_site(xml)
        else [PYTHON, "-I", "-c", program, str(ROOT)],
        input=xml,
        env=dict(os.environ, CGW_RUNTIME_DIR=runtime, CGW_CONFIG=str(tmp_path / "none")),
        capture_output=True,
        check=True,
    )  # fmt: skip
    code, *names = done.stdout.decode().split()
    assert ("0", b"") == (code, done.stderr)
    return set(names)


def annotated_needs_site(xml: bytes) -> bool:
    """Without site-packages not even ``site`` is loaded, but lxml is not found either."""
    return b"urn:cgw-hooks" in xml


@pytest.mark.parametrize("operation", ["prepare", "started", "stopped", "release", "reconnect"])
def test_a_plain_guest_loads_next_to_nothing(tmp_path: Path, operation: str) -> None:
    loaded = loaded_by_a_hook_call(tmp_path, domain(""), operation)
    assert set() == loaded & (HEAVY | NOT_FOR_PLAIN_GUESTS)
    assert PACKAGE in loaded
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("operation", ["start", "migrate", "restore", "unknown"])
def test_an_operation_that_does_nothing_loads_next_to_nothing(
    tmp_path: Path, operation: str
) -> None:
    loaded = loaded_by_a_hook_call(tmp_path, annotated(), operation)
    assert set() == loaded & (HEAVY | NOT_FOR_PLAIN_GUESTS)


def test_a_guest_that_publishes_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = loaded_by_a_hook_call(tmp_path, annotated(start=61202), "prepare")
    assert set() == loaded & HEAVY
    assert "lxml" in loaded  # it was really read,
    assert len(list((tmp_path / "run/guests").iterdir())) == 1  # and claimed

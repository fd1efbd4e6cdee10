"""The shape of the package: imports run inward, and a hook call loads no more than it needs."""

from __future__ import annotations

import ast
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.unit.builders import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

PACKAGE = "cgw_hooks"
MODULES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).rglob("*.py"))

#: What each ring may import of the package, itself aside.
INWARD = {
    "errors": set[str](),
    "core": {"core", "errors"},
    # Of one another, host modules may use the places and the channel to the kernel alone.
    "host": {"core", "errors", "host.paths", "host.netlink"},
    "sources": {"core", "errors", "host"},
    "node": {"core", "errors", "host", "sources", "node"},
    "commands": {"core", "errors", "host", "sources", "node", "commands"},
}
STATE = f"{PACKAGE}/host/state/"


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
    if module.startswith(STATE):
        allowed = allowed | {"host.state"}
    ours = [name.partition(".")[2] for name in imports(module) if name.startswith(PACKAGE + ".")]
    if ring == "commands":
        ours = [name for name in ours if name != "__version__"]
    assert [] == [name for name in ours if not is_within(name, allowed)]


def test_only_the_domain_reader_imports_lxml() -> None:
    users = [module for module in MODULES if any(is_within(i, {"lxml"}) for i in imports(module))]
    assert [f"{PACKAGE}/core/parse/domain_xml.py"] == users


@pytest.mark.parametrize(
    ("library", "users"),
    [
        ("libvirt", ["host/libvirt_api.py"]),
        ("nftables", ["host/nft.py"]),
        ("syslog", ["host/log.py"]),
        ("argparse", ["commands/terminal.py"]),
        ("rich", []),
        ("pyroute2", ["host/links.py"]),
        ("tomllib", ["core/parse/config_toml.py"]),
        ("fcntl", ["host/state/lock.py"]),
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

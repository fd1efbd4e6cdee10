"""The shape of the package: imports run inward, and a hook call loads no more than it needs."""

from __future__ import annotations

import ast
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.unit.builders import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

pytestmark = pytest.mark.unit

PACKAGE = "cgw_hooks"
MODULES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).rglob("*.py"))

#: What each ring may import of the package, itself aside.
INWARD = {
    "errors": set[str](),
    "core": {"core", "errors"},
    # Of one another, host modules may use the places and the channels to the kernel and to
    # libvirt alone.
    "host": {
        "core",
        "errors",
        "host.paths",
        "host.netlink",
        "host.netlink_events",
        "host.stand_ins",
        "host.libvirt_api",
        "host.libvirt_connection",
        "host.libvirt_library",
    },
    # Whatever a guest's source, its address is found in one way.
    "sources": {"core", "errors", "host", "sources.found_addresses"},
    "node": {"core", "errors", "host", "sources", "node"},
    "agent": {"core", "errors", "host", "sources", "node", "agent"},
    "commands": {"core", "errors", "host", "sources", "node", "agent", "commands"},
}
STATE = f"{PACKAGE}/host/state/"
ETCD = f"{PACKAGE}/host/etcd/"

#: Names of files and folders below the runtime directory.
STATE_NAMES = {
    "guests",
    "index",
    "node.json",
    "node.down",
    "node.lost",
    "nodes.json",
    "bytes.json",
    "calls",
    "record.new",
    "lock",
    "bridges",
    "uuids",
}
#: The hook looks whether a guest has a record before it loads anything else; this tells it where.
NAMES_THE_STATE = {
    f"{PACKAGE}/host/paths.py",
    # Keys of the cluster's registry have such names, too.
    f"{PACKAGE}/core/registry_value.py",
}

#: Every hook call that loads these takes some milliseconds longer.
SLOW_IMPORTS = {"typing", "contextlib"}
#: The modules of the inner rings that may import them, since no hook call ever loads these.
NEVER_IN_A_HOOK_CALL = {
    "core/etcd/questions.py": "the agent alone asks etcd",
    "host/etcd/connection.py": "the agent alone speaks to etcd",
    "host/libvirt_api.py": "a hook must not call libvirt: libvirt waits for the hook",
    "host/policy_routes.py": "pyroute2: only `cgw node` makes routes",
    "host/link_probe.py": "only `cgw doctor` asks links",
    "node/doctor.py": "only `cgw doctor` loads it",
    "host/tcp_probe.py": "only `cgw doctor` connects to guests",
    "node/trace.py": "only `cgw trace` arms a trace",
    "node/probe.py": "only `cgw trace --probe` sends anything",
    "host/own_network.py": "only `cgw install` and `cgw trace` make a network namespace",
}
#: Of these rings, a hook call loads nothing but the commands that follow.
OUTER_RINGS = (f"{PACKAGE}/agent/", f"{PACKAGE}/commands/")
HOOK_COMMANDS = {
    f"{PACKAGE}/commands/{name}.py" for name in ("__init__", "cli", "hook", "this_node")
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


@cache
def imports(module: str) -> list[str]:
    """Every import of a module, also late ones and those for type checkers."""
    return list(imported(ast.walk(tree(module))))


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """What these statements import, by whole name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def without_type_checking(node: ast.AST) -> Iterator[ast.AST]:
    """A module's nodes, but for what stands under ``if TYPE_CHECKING:``."""
    yield node
    for child in ast.iter_child_nodes(node):
        guard = ast.unparse(node.test) if isinstance(node, ast.If) and child in node.body else ""
        if guard != "TYPE_CHECKING":
            yield from without_type_checking(child)


def imports_at_run_time(module: str) -> set[str]:
    """What a module imports when it runs, by first name; also late."""
    return {name.partition(".")[0] for name in imported(without_type_checking(tree(module)))}


def is_within(name: str, allowed: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in allowed)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_inward_only(module: str) -> None:
    ring = module.removeprefix(f"{PACKAGE}/").removesuffix(".py").partition("/")[0]
    allowed = INWARD.get(ring, {"commands.cli", "__version__"})
    for package in (STATE, ETCD):
        if module.startswith(package):
            allowed = allowed | {package.removeprefix(f"{PACKAGE}/").strip("/").replace("/", ".")}
    ours = [name.partition(".")[2] for name in imports(module) if name.startswith(PACKAGE + ".")]
    if ring in {"commands", "agent"}:
        ours = [name for name in ours if name != "__version__"]
    assert [] == [name for name in ours if not is_within(name, allowed)]


def test_only_what_reads_and_edits_annotations_imports_lxml() -> None:
    users = [module for module in MODULES if any(is_within(i, {"lxml"}) for i in imports(module))]
    wanted = {
        f"{PACKAGE}/core/{name}.py"
        for name in ("annotation_edit", "parse/domain_xml", "parse/annotation_schema")
    }
    assert wanted == set(users)


@pytest.mark.parametrize(
    ("library", "users"),
    [
        ("libvirt", ["host/libvirt_library.py"]),
        ("nftables", ["host/nft.py"]),
        ("syslog", ["host/log.py"]),
        ("argparse", ["commands/arguments.py", "commands/command_parser.py"]),
        ("rich", []),
        ("prometheus_client", ["agent/metrics/page.py"]),
        ("pyroute2", ["host/links.py", "host/policy_routes.py"]),
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


def test_this_tier_starts_no_process_and_makes_no_network() -> None:
    effects = {"subprocess", "socket", "multiprocessing", "threading", "tests.lab", "tests.netns"}
    tests = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/unit").glob("*.py"))
    assert len(tests) > 5
    assert {} == {m: e for m in tests if (e := {i for i in imports(m) if is_within(i, effects)})}


def test_what_a_hook_call_loads_does_without_slow_imports() -> None:
    outer = {m for m in MODULES if m.startswith(OUTER_RINGS)} - HOOK_COMMANDS
    slow = {m for m in MODULES if m not in outer and imports_at_run_time(m) & SLOW_IMPORTS}
    assert {f"{PACKAGE}/{module}" for module in NEVER_IN_A_HOOK_CALL} == slow


def test_only_the_state_knows_what_its_files_are_called() -> None:
    found = {
        f"{module}:{node.lineno}: {node.value}"
        for module in MODULES
        if not module.startswith(STATE) and module not in NAMES_THE_STATE
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if not STATE_NAMES.isdisjoint(node.value.split("/"))
    }
    assert set() == found


@pytest.mark.parametrize("package", [m for m in MODULES if m.endswith("/__init__.py")])
def test_a_package_loads_nothing_by_itself(package: str) -> None:
    body = tree(package).body
    assert isinstance(body[0], ast.Expr)
    more = ["__version__"] if package == f"{PACKAGE}/__init__.py" else []
    assert more == [ast.unparse(statement).partition(" = ")[0] for statement in body[1:]]


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

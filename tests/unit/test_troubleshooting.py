"""docs/troubleshooting.md has an entry for each problem that the code can report, and no other."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.unit.builders import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit


def codes() -> set[str]:
    """Each code of an error class, and each first argument of ``Problem(...)``."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in package()]
    return {str(found.value) for tree in trees for found in literals(tree)}


def package() -> list[Path]:
    return sorted((ROOT / "cgw_hooks").rglob("*.py"))


def literals(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        value: ast.AST | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            value = node.args[0] if node.func.id == "Problem" and node.args else None
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value if node.targets[0].id == "code" else None
        if isinstance(value, ast.IfExp):
            yield from (v for v in (value.body, value.orelse) if isinstance(v, ast.Constant))
        elif isinstance(value, ast.Constant):
            yield value


def test_each_code_has_its_entry() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    entries = re.findall(r"^### `([a-z-]+)`$", text, re.MULTILINE)
    assert sorted(entries) == sorted(codes())
    assert {"no-address", "not-running", "lock"} < codes()

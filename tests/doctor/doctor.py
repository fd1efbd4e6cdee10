"""Calls `cgw doctor`, holds its output against the schema, and types its cures."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.netns.node import Node

_SCHEMA = Path(__file__).parents[2] / "cgw_hooks/schemas/doctor.json"
_LONGEST_CURE = 120.0


@cache
def validator() -> Draft202012Validator:
    """The schema, itself checked."""
    schema = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def examine(node: Node, *arguments: str) -> list[dict[str, Any]]:
    """The findings of `cgw doctor --json`; its exit code must agree with them."""
    done = node.cgw("doctor", "--json", *arguments, check=False)
    assert done.stderr == "", done.stderr
    found = json.loads(done.stdout)
    validator().validate(found)
    checks: list[dict[str, Any]] = found["checks"]
    assert done.returncode == int(any(each["verdict"] == "fail" for each in checks)), checks
    return checks


def faults(node: Node, *arguments: str) -> list[dict[str, Any]]:
    """The findings that are faults."""
    return [each for each in examine(node, *arguments) if each["verdict"] == "fail"]


def type_command(node: Node, command: str, *, programs: Path | None = None) -> str:
    """Type a command into a shell of the node. What counts is what it has changed.

    (`cgw sync` ends with 1 here, since this node has no libvirt.) `programs` is one more folder of
    the PATH. Returns what was said.
    """
    environment = node.environment()
    if programs:
        environment["PATH"] = f"{programs}:{environment['PATH']}"
    done = subprocess.run(
        [*node.namespace.enter_command(), "sh", "-c", command],
        env=environment, cwd="/", check=False, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=_LONGEST_CURE,
    )  # fmt: skip
    return done.stdout + done.stderr

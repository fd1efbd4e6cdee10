"""The JSON schema of `cgw status --json` is about this version, and refuses what is not of it.

The other tiers hold each real output against it (tests/lab/status_json.py).
"""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from cgw_hooks.commands.status import VERSION, as_json
from cgw_hooks.core.diagnosis import Diagnosis, Row
from cgw_hooks.core.guest import REGISTRY, REMOTE, XL
from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.published_port import PROTOCOLS, ClientLimits
from cgw_hooks.core.record import Record, State
from tests.unit.builders import ROOT, guest, port

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

SCHEMA = json.loads((ROOT / "cgw_hooks/schemas/status.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
PROBLEM = Problem("elements", "guest web1", "they are gone", "run: cgw sync")


def output(*rows: Row, problems: tuple[Problem, ...] = ()) -> dict[str, Any]:
    """What would be printed, as a program reads it."""
    found: dict[str, Any] = json.loads(json.dumps(as_json(Diagnosis([*rows], [*problems]), "n1")))
    return found


def row(state: str = "published", problem: Problem | None = None, at: str = "") -> Row:
    limits = ClientLimits(10, "second", 20)
    published = port((8000, 8009), 80, at=at, sources=("10.0.0.0/8",), limits=limits)
    return Row(Record(guest(published), State.PUBLISHED, 1.0), published, state, problem)


def test_what_is_printed_is_of_the_schema() -> None:
    without_ports = Row(Record(guest(), State.RESERVED, 0.0), None, "not published", PROBLEM)
    VALIDATOR.validate(output())
    VALIDATOR.validate(output(row(), row("failed", PROBLEM, at="192.0.2.1"), without_ports))
    VALIDATOR.validate(output(row(), problems=(PROBLEM, Problem("lock", "lock", "held"))))


def changes(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each way to leave out a member, and more."""
    text = json.dumps(found)
    for name in found:
        yield name, {key: value for key, value in found.items() if key != name}
    for name in sorted(set(found["published"][0]) - {"limit", "max_connections"}):
        other = json.loads(text)
        del other["published"][0][name]
        yield f"published.{name}", other
    for name, value in {
        "state": "open", "driver": "kvm", "family": 5, "listen_ports": [80], "sources": "any",
        "target_ports": [0, 1], "since": "yesterday", "problem": "none", "protocol": "icmp",
        "limit": "10/day", "max_connections": 0,
    }.items():  # fmt: skip
        other = json.loads(text)
        other["published"][0][name] = value
        yield f"{name} = {value}", other


CHANGES = dict(changes(output(row("failed", PROBLEM))))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VALIDATOR.validate(change)


def test_another_version_is_refused() -> None:
    assert VERSION == SCHEMA["properties"]["version"]["const"]
    with pytest.raises(ValidationError):
        VALIDATOR.validate({**output(), "version": VERSION + 1})


def test_the_schema_knows_each_state_driver_and_protocol() -> None:
    members = SCHEMA["$defs"]["guest"]["properties"]
    assert set(members["state"]["enum"]) == states()
    assert set(members["driver"]["enum"]) == {*DRIVERS, XL, REMOTE, REGISTRY}
    assert SCHEMA["$defs"]["port"]["properties"]["protocol"]["enum"] == [*PROTOCOLS]


def states() -> set[str]:
    """Every state that a row can have: the literals of the diagnosis, and those of records."""
    tree = ast.parse((ROOT / "cgw_hooks/node/diagnosis.py").read_text(encoding="utf-8"))
    given = [
        call.args[2] for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Row"
    ]  # fmt: skip
    literals = {
        node.value for argument in given for node in ast.walk(argument)
        if isinstance(node, ast.Constant)
    }  # fmt: skip
    return {str(literal) for literal in literals} | {state.value for state in State}

"""The JSON schema of `cgw status --cluster --json` is of this version, and refuses all else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from cgw_hooks.commands import schemas
from cgw_hooks.commands.cluster_status import as_json
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.published_port import PROTOCOLS, ClientLimits
from cgw_hooks.node.cluster import CLOSED, LOST, OPEN, PENDING, Cluster, ClusterRow, NodeState
from tests.unit.builders import guest, port

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

SCHEMA = json.loads(schemas.CLUSTER.read_text(encoding="utf-8"))
STATUS = json.loads(schemas.STATUS.read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
PROBLEM = Problem("registry", "https://10.0.0.1:2379", "it does not answer", "start this member")


def output(*rows: ClusterRow, problems: tuple[Problem, ...] = ()) -> dict[str, Any]:
    """What would be printed, as a program reads it."""
    nodes = [NodeState("node1", 1.5), NodeState("node2", None)]
    found: dict[str, Any] = json.loads(json.dumps(as_json(Cluster(nodes, [*rows], [*problems]))))
    return found


def row(states: dict[str, str], at: str = "", target: str | None = "10.5.5.202") -> ClusterRow:
    limits = ClientLimits(10, "second", 20)
    published = port((8000, 8009), 80, at=at, target=target, sources=("10.0.0.0/8",), limits=limits)
    limited = guest(published)._replace(limits=((published.claim, 1_800_000_000),))
    return ClusterRow(limited, "node1", published, states)


def test_what_is_printed_is_of_the_schema() -> None:
    nowhere = Cluster([], [], [])
    VALIDATOR.validate(json.loads(json.dumps(as_json(nowhere))))
    VALIDATOR.validate(output())
    (shown,) = output(row({"node1": OPEN}))["published"]
    assert (shown["limit"], shown["max_connections"]) == ("10/second", 20)
    rows = [row({"node1": state, "node2": OPEN}) for state in (OPEN, CLOSED, PENDING, LOST)]
    VALIDATOR.validate(output(*rows, row({"node1": OPEN}, at="192.0.2.1", target=None)))
    VALIDATOR.validate(output(problems=(PROBLEM, PROBLEM._replace(cure=""))))


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        ({"node1": OPEN, "node2": OPEN}, OPEN),
        ({"node1": OPEN, "node2": CLOSED}, CLOSED),
        ({"node1": LOST, "node2": CLOSED}, LOST),
        ({"node1": PENDING, "node2": PENDING}, PENDING),
    ],
)
def test_the_state_of_a_port_is_the_worst_one(states: dict[str, str], worst: str) -> None:
    (shown,) = output(row(states))["published"]
    assert (shown["state"], shown["nodes"]) == (worst, states)


def changes(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each way to leave out a member, and more."""
    text = json.dumps(found)
    for name in found:
        yield name, {key: value for key, value in found.items() if key != name}
    for place in ("nodes", "published"):
        for name in sorted(set(found[place][0]) - {"until", "limit", "max_connections"}):
            other = json.loads(text)
            del other[place][0][name]
            yield f"{place}.{name}", other
    for place, name, value in (
        ("published", "state", "published"), ("published", "nodes", {}),
        ("published", "nodes", {"node1": "up"}), ("published", "node", ""),
        ("published", "family", 5), ("published", "listen_ports", [80]),
        ("published", "target_ports", [0, 1]), ("published", "until", "soon"),
        ("published", "protocol", "icmp"), ("published", "sources", "any"),
        ("nodes", "since", None), ("nodes", "since", -1), ("nodes", "present", "yes"),
        ("nodes", "present", False), ("nodes", "node", ""),
        ("published", "limit", "10/day"), ("published", "max_connections", 0),
    ):  # fmt: skip
        other = json.loads(text)
        other[place][0][name] = value
        yield f"{place}.{name} = {value}", other


CHANGES = dict(changes(output(row({"node1": OPEN}), problems=(PROBLEM,))))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VALIDATOR.validate(change)


def test_another_version_is_refused() -> None:
    with pytest.raises(ValidationError):
        VALIDATOR.validate({**output(), "version": output()["version"] + 1})


def test_both_schemas_describe_a_port_and_a_problem_alike() -> None:
    ports = [schema["$defs"]["port"] for schema in (SCHEMA, STATUS)]
    of_status = set(ports[1]["required"])
    assert of_status < set(ports[0]["required"])
    for name in of_status | {"until"}:
        assert ports[0]["properties"][name] == ports[1]["properties"][name]
    for name in ("problem", "range", "number", "time"):
        assert SCHEMA["$defs"][name] == STATUS["$defs"][name]
    assert ports[0]["properties"]["protocol"]["enum"] == [*PROTOCOLS]

"""``cgw status --cluster``: every guest of the cluster, and at which nodes its ports are open."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from cgw_hooks.commands.status import port_members
from cgw_hooks.commands.status_table import table
from cgw_hooks.errors import printable
from cgw_hooks.node.cluster import CLOSED, LOST, OPEN, PENDING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.node.cluster import Cluster, ClusterRow, NodeState

_HEADINGS = ("GUEST", "NODE", "LISTEN", "TARGET", "OPEN AT", "STATE")
_NODE_HEADINGS = ("NODE", "SINCE")
#: The version of the JSON format.
_VERSION = 1


def print_cluster(found: Cluster) -> None:
    """Print the nodes and the ports; on stderr, one line per problem."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    nodes = [_NODE_HEADINGS, *((printable(n.name), _age(n)) for n in found.nodes)]
    _print(table(nodes, width))
    if found.rows:
        sys.stdout.write("\n")
        _print(table([_HEADINGS, *map(_cells, found.rows)], width))
    for problem in found.problems:
        sys.stderr.write(f"cgw: {printable(str(problem))}\n")


def as_json(found: Cluster) -> dict[str, Any]:
    """Return the cluster for ``--json``."""
    return {
        "version": _VERSION,
        "nodes": [
            {"node": node.name, "present": node.since is not None, "since": node.since}
            for node in found.nodes
        ],
        "published": [
            {
                "guest": row.guest.name,
                "uuid": row.guest.uuid or None,
                "node": row.node,
                "state": state(row),
                "nodes": row.states,
                **port_members(row.guest, row.port),
            }
            for row in found.rows
        ],
        "problems": [problem.as_json() for problem in found.problems],
    }


def graph(found: Cluster) -> str:
    """Return a graph in Graphviz's DOT: clients reach a port at its nodes, which lead to the guest.

    The guests are in the frame of the node that runs them.
    """
    from cgw_hooks.commands.graph import quoted_text

    lines = ["digraph cgw {", "  rankdir=LR;", "  node [shape=box];"]
    for number, node in enumerate(found.nodes):
        lines.append(f"  {quoted_text(node.name)} [shape=house];")
        names = sorted({row.guest.name for row in found.rows if row.node == node.name})
        if names:
            lines += [f"  subgraph cluster_{number} {{", f"    label={quoted_text(node.name)};"]
            for name in names:
                lines.append(f"    {quoted_text(f'guest {name}')} [label={quoted_text(name)}];")
            lines.append("  }")
    for row in found.rows:
        label = quoted_text(f"{row.port.listen} -> {row.port.target}")
        for node_name, at_node in sorted(row.states.items()):
            style = "solid" if at_node == OPEN else "dotted"
            ends = f"{quoted_text(node_name)} -> {quoted_text(f'guest {row.guest.name}')}"
            lines.append(f"  {ends} [style={style}, label={label}];")
    return "\n".join([*lines, "}"]) + "\n"


def is_well(found: Cluster) -> bool:
    """Whether nothing is wrong."""
    return not found.problems and all(state(row) == OPEN for row in found.rows)


def state(row: ClusterRow) -> str:
    """Return the worst state of a port at the nodes."""
    states = set(row.states.values())
    return next(word for word in (PENDING, LOST, CLOSED, OPEN) if word in states or word == OPEN)


def _print(lines: Iterator[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _age(node: NodeState) -> str:
    if node.since is None:
        return "gone"
    seconds = max(int(time.time() - node.since), 0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _cells(row: ClusterRow) -> tuple[str, ...]:
    opened = sorted(name for name, at_node in row.states.items() if at_node == OPEN)
    return (
        printable(row.guest.name),
        printable(row.node),
        row.port.listen,
        row.port.target,
        printable(", ".join(opened)) or "-",
        state(row),
    )

"""``cgw status --graph``: this node, its published ports and their guests, in Graphviz's DOT.

The language is described at https://graphviz.org/doc/info/lang.html. ``cgw status --graph | dot
-Tsvg`` draws the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgw_hooks.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.diagnosis import Diagnosis, Row

#: State of a row -> style of its edges; all other states use another style.
_STYLES = {"published": "solid", "failed": "bold", "not published": "bold"}
_ON_ITS_WAY = "dotted"


def graph(found: Diagnosis, node: str) -> str:
    """Return the text of the graph. The guests of other nodes have a frame of their own."""
    here = [row for row in found.rows if not row.record.guest.is_remote]
    elsewhere = [
        row for row in found.rows if row.record.guest.is_remote and row.state != "overridden"
    ]
    lines = [
        "digraph cgw {",
        "  rankdir=LR;",
        "  node [shape=box];",
        f"  {quoted_text(node)} [shape=house];",
        *_guests("on this node", "cluster_here", here),
        *_guests("on other nodes", "cluster_elsewhere", elsewhere),
        *(line for row in (*here, *elsewhere) for line in _edges(node, row)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _guests(title: str, frame: str, rows: list[Row]) -> Iterator[str]:
    names = sorted({row.record.guest.name for row in rows})
    if names:
        yield f"  subgraph {frame} {{"
        yield f"    label={quoted_text(title)};"
        for name in names:
            yield f"    {_guest(name)} [label={quoted_text(name)}];"
        yield "  }"


def _edges(node: str, row: Row) -> Iterator[str]:
    if not row.port:
        return
    style = f"style={_STYLES.get(row.state, _ON_ITS_WAY)}"
    listen, target = quoted_text(row.port.listen), quoted_text(row.port.target)
    yield f"  {listen} [shape=oval];"
    yield f"  {quoted_text(node)} -> {listen} [{style}];"
    yield f"  {listen} -> {_guest(row.record.guest.name)} [{style}, label={target}];"


def _guest(name: str) -> str:
    """Return the name of a guest's node, which no port and no host can have."""
    return quoted_text(f"guest {name}")


def quoted_text(text: str) -> str:
    """Quote any text as a string of DOT, on one line."""
    return '"' + printable(text).replace("\\", "\\\\").replace('"', '\\"') + '"'

"""Text that deletes the chains and sets of nodes that steering knows no more.

To write the rules again keeps the objects of a table, and so those of former nodes as well.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    #: Table and name of a chain or set.
    Place = tuple[str, str]

#: What the names of a node's chains and sets begin with; a number and a mark follow. The first ones
#: are those of `steer` and `reused_ports`, the others those of `ct_sync`.
_CHAINS = {"entered", "return_to", "learned", "came_by", "hand_to"}
_CHAINS |= {"opened", "sent", "direct", "hand"}
_SETS = {"known", "reused", "young", "learned"}


def removals(static: Iterable[str], chains: Iterable[Place], sets: Iterable[Place]) -> str:
    """Return text that follows the static rules of a config, which name what is needed.

    ``chains`` and ``sets`` are those that the kernel has.
    """
    needed, tables = set(), set()
    for line in static:
        verb, kind, family, table, *rest = line.split()
        if verb == "add" and kind in {"table", "chain", "set"}:
            tables.add(f"{family} {table}")
            needed.add((kind, f"{family} {table}", *rest[:1]))
    former = [
        (kind, place, name)
        for kind, stems, found in (("chain", _CHAINS, chains), ("set", _SETS, sets))
        for place, name in sorted(found)
        if place in tables and _stem(name) in stems and (kind, place, name) not in needed
    ]
    flushed = [f"flush chain {place} {name}" for kind, place, name in former if kind == "chain"]
    deleted = [f"delete {kind} {place} {name}" for kind, place, name in former]
    return "".join(f"{line}\n" for line in (*flushed, *deleted))


def _stem(name: str) -> str:
    return name.rpartition("_")[0].rstrip("0123456789")

"""Drops every packet from and to the addresses of a dead node while its flows are taken over.

Such a packet, bridged through this node or sent by a client, would start a flow of its own here,
and the kernel takes no second flow with the same end: the replicated one would be refused, and the
connection lost. The table is there for some hundredths of a second; the kernel deletes it if the
process that made it ends before (NFT_TABLE_F_OWNER, since Linux 5.12).
"""

from __future__ import annotations

from cgw_hooks.core.rules.commands import IP, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.published_port import Address

TABLE = "inet cgw_takeover"

_OWNED = f"add table {TABLE} {{ flags owner; }}"
_HOOKS = ("prerouting", "output")
_PRIORITY = -300  # after fragments are joined (-400), before connection tracking (-200)


def add(addresses: Iterable[Address]) -> str:
    """Return nft text that makes the table, for these addresses alone."""
    table = Table(TABLE)
    for hook in _HOOKS:
        table.add_chain(hook, f"type filter hook {hook} priority {_PRIORITY}")
    table.add_rules(
        f"{hook} {IP[address.version]} {field} {address} drop"
        for address in addresses
        for hook in _HOOKS
        for field in ("saddr", "daddr")
    )
    _, *chains_and_rules = table.commands()
    return "\n".join([_OWNED, *chains_and_rules]) + "\n"


def delete() -> str:
    """Return nft text that deletes the table; only the process that made it can."""
    return f"delete table {TABLE}\n"

"""The names of cgw's tables, and the numbers of protocols, as nft takes them."""

from __future__ import annotations

TABLE = "inet cgw"
BRIDGE_TABLE = "bridge cgw"
#: The table of an IP family. `dup` exists in the families ip and ip6 only, not in inet.
FAMILY_TABLES = {4: "ip cgw", 6: "ip6 cgw"}
#: The tables of ct-sync: of the bridge, and of each IP family.
SYNC_BRIDGE_TABLE = "bridge cgw_ct_sync"
SYNC_FAMILY_TABLES = {4: "ip cgw_ct_sync", 6: "ip6 cgw_ct_sync"}
#: What the names of the tables of `cgw trace` begin with, without the family. They have an owner:
#: the kernel deletes them when their process ends, and nobody else can, so no list of tables that
#: must be removed has them.
TRACE_TABLE = "cgw_trace"
#: The table of bans, which is there while a client is denied.
DENIED_TABLE = "inet cgw_denied"

#: Protocols must be numbers: nft looks words up in /etc/protocols, which small hosts lack.
PROTOCOL_NUMBER = {"tcp": 6, "udp": 17, "sctp": 132}

#: The names of the chains and sets for clients' limits begin with this.
LIMIT_CHAIN = "limit_"

# These bits of the conntrack label (0 to 127) mark the flows of `publish`. "ct status dnat" cannot
# do that: other programs' port forwards have it too. A rule can set a bit but cannot clear it (the
# kernel's nft_ct.c), and can test whether a map holds a key only since Linux 6.5. So there are two
# bits: one is set before the lookups of `publish`, the other after them if none of them translated
# the flow.
SEEN_LABEL = 118
LEFT_LABEL = 119


def is_own(table: str) -> bool:
    """Whether a table, with its family, is one of cgw's."""
    name = table.partition(" ")[2]
    return name == "cgw" or name.startswith("cgw_")

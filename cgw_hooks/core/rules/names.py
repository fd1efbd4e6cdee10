"""The names of cgw's tables, and the numbers of protocols, as nft takes them."""

from __future__ import annotations

TABLE = "inet cgw"
BRIDGE_TABLE = "bridge cgw"
#: The table of an IP family. `dup` exists in the families ip and ip6 only, not in inet.
FAMILY_TABLES = {4: "ip cgw", 6: "ip6 cgw"}
#: What the names of the tables of `cgw trace` begin with, without the family. They have an owner:
#: the kernel deletes them when their process ends, and nobody else can, so no list of tables that
#: must be removed has them.
TRACE_TABLE = "cgw_trace"

#: Protocols must be numbers: nft looks words up in /etc/protocols, which small hosts lack.
PROTOCOL_NUMBER = {"tcp": 6, "udp": 17, "sctp": 132}

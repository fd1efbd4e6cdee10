"""Reads the rules of all other programs on this host. Changes nothing."""

from __future__ import annotations

from cgw_hooks.core.parse import iptables_rules, nft_rules
from cgw_hooks.core.rules.names import is_own
from cgw_hooks.errors import RulesetError
from cgw_hooks.host import iptables
from cgw_hooks.host.nft_tables import table_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.packet_filter import Chain
    from cgw_hooks.host.nft import Nft

_FAMILIES = ("ip", "ip6", "inet", "bridge")
_IPTABLES = {"filter", "nat", "mangle", "raw", "security"}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


def read_chains(nft: Nft) -> list[Chain]:
    """Return the base chains, in the order in which a packet meets them.

    The rules of iptables are read with its own command: nft does not name all their conditions in
    JSON. Raises ``RulesetError``.
    """
    try:
        names = {name for name in table_names() if name.split()[0] in _FAMILIES}
    except OSError as error:
        raise RulesetError("nftables", f"the kernel does not list its tables: {error}") from error
    found: list[Chain] = []
    for name in sorted(name for name in names if not is_own(name)):
        try:
            listed = nft.list_json(f"list table {name}")
        except RulesetError:  # it is gone
            continue
        found += nft_rules.parse_rules(listed)
    for version, (command, family) in iptables.COMMANDS.items():
        managed = [chain for chain in found if _is_of_iptables(chain, family)]
        saved = iptables.save(version, "nft") if managed else None
        if saved is not None:
            found = [chain for chain in found if chain not in managed]
            found += iptables_rules.parse_rules(saved, version, command)
        if iptables.has_legacy_tables(version):
            saved = iptables.save(version, "legacy") or ""
            found += iptables_rules.parse_rules(saved, version, f"{command}-legacy")
    return sorted(found, key=lambda chain: (_HOOKS.index(chain.hook), chain.priority))


def _is_of_iptables(chain: Chain, family: str) -> bool:
    """Whether iptables made a chain: it writes the names of base chains in capitals."""
    of_family, _, name = chain.table.partition(" ")
    return of_family == family and name in _IPTABLES and chain.name == chain.hook.upper()

"""The text of single rules, by their handles: as iptables writes them, where iptables made them.

nft 1.0.6 translates rules of iptables into words of its own, and later versions print some as
``xt match``. Whoever made them with iptables knows them by iptables' words.
"""

from __future__ import annotations

import re
import subprocess

from cgw_hooks.errors import RulesetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: nft's word for an IP family -> the command of iptables.
_COMMANDS = {"ip": "iptables-nft", "ip6": "ip6tables-nft"}
_TABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})
_WAIT_SECONDS = "5"
#: Names that nft takes without quotes. Other programs give names to tables and chains.
_NAME = re.compile(r"[A-Za-z_.][A-Za-z0-9_./-]*")
_RULE = re.compile(r"^\t\t(?P<text>.*\S) +# handle (?P<handle>\d+)$", re.MULTILINE)
_COUNTER = re.compile(r"counter packets \d+ bytes \d+ ?")
_BLANKS = re.compile(r" {2,}")


def rule_texts(
    wanted: Iterable[tuple[str, str, int]], read_nft: Callable[[str], str]
) -> dict[tuple[str, str, int], str]:
    """Return the text of rules, by table, chain and handle; those that are gone are left out.

    ``read_nft`` returns a listing with handles, and raises ``RulesetError`` if there is none.
    """
    found: dict[tuple[str, str, int], str] = {}
    for table, chain in dict.fromkeys((table, chain) for table, chain, _ in wanted):
        if all(map(_NAME.fullmatch, (*table.split(), chain))):
            for handle, text in _texts(table, chain, read_nft).items():
                found[table, chain, handle] = text
    return found


def _texts(table: str, chain: str, read_nft: Callable[[str], str]) -> dict[int, str]:
    """Return handle -> text of all rules of a chain."""
    try:
        listing = read_nft(f"list chain {table} {chain}")
    except RulesetError:
        return {}
    rules = [(int(match["handle"]), match["text"]) for match in _RULE.finditer(listing)]
    family, _, name = table.partition(" ")
    if family in _COMMANDS and name in _TABLES:
        lines = _iptables_rules(_COMMANDS[family], name, chain)
        if len(lines) == len(rules):  # else another program has changed the chain just now
            return {handle: line for (handle, _), line in zip(rules, lines, strict=True)}
    return {handle: _BLANKS.sub(" ", _COUNTER.sub("", text)).strip() for handle, text in rules}


def _iptables_rules(command: str, table: str, chain: str) -> list[str]:
    """Return the rules of a chain as iptables writes them; none if it is no chain of iptables."""
    argv = [command, "-w", _WAIT_SECONDS, "-t", table, "-S", chain]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        return []
    return [line for line in done.stdout.splitlines() if line.startswith("-A ")]

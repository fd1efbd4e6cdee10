"""One nft table as the commands that make it: its sets, its chains and their rules."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: IP version -> nft's word for the protocol, which is also the name of the table family.
IP = {4: "ip", 6: "ip6"}
#: IP version -> nft's type of an address.
ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}


class Table:
    """The sets, chains and rules of one table, in the order in which they are added."""

    def __init__(self, name: str) -> None:
        """``name`` is family and name, for example ``inet cgw``."""
        self.name = name
        self._sets: list[str] = []
        self._chains: dict[str, str] = {}
        self._rules: list[str] = []

    def add_set(self, text: str) -> None:
        """Add a set or map, for example ``set seen { type ipv4_addr; }``."""
        kind, _, rest = text.partition(" ")
        self._sets.append(f"add {kind} {self.name} {rest}")

    def add_chain(self, chain: str, hook: str = "") -> None:
        """Add a chain. ``hook`` is, for example, ``type nat hook output priority -105``."""
        self._chains[chain] = f" {{ {hook}; }}" if hook else ""

    def add_rules(self, rules: Iterable[str]) -> None:
        """Add rules, each of which begins with its chain, to chains that were added before."""
        self._rules.extend(rules)

    def commands(self) -> list[str]:
        """Return the commands that make the table; they empty the chains that it has already."""
        lines = [f"add table {self.name}", *self._sets]
        for chain, hook in self._chains.items():
            lines += [f"add chain {self.name} {chain}{hook}", f"flush chain {self.name} {chain}"]
        return lines + [f"add rule {self.name} {rule}" for rule in self._rules]

    def rule_counts(self) -> dict[str, int]:
        """Return chain -> number of rules."""
        counts = dict.fromkeys(self._chains, 0)
        for rule in self._rules:
            counts[rule.partition(" ")[0]] += 1
        return counts


def remove(name: str) -> str:
    """Return text that deletes a table, even if there is none."""
    return f"add table {name}\ndelete table {name}\n"


def listed(values: Iterable[object]) -> str:
    """Return a set of values as nft writes it."""
    return "{ " + ", ".join(str(value) for value in values) + " }"


def devices(names: Iterable[str]) -> str:
    """Return a set of device names as nft writes it."""
    return listed(f'"{name}"' for name in names)

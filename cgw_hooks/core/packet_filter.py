"""Decides what the rules of a host's firewalls would do with a packet of a published port.

The answer is a set of possible outcomes, since not everything about the packet is known (the
client's address, for example) and not every rule is understood. Only if all outcomes are a drop is
it certain that the packet would be dropped.

A base chain that accepts a packet ends only itself: the packet then meets the next base chain.
Source: net/netfilter/nf_tables_core.c (nft_do_chain), net/netfilter/core.c (nf_hook_slow).
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: What a rule does. CONTINUE means that the next rule decides.
ACCEPT, DROP, JUMP, GOTO, RETURN, CONTINUE = "accept", "drop", "jump", "goto", "return", "continue"
#: The rule gives the packet a mark, and the next one decides.
MARK = "mark"
#: Another program decides (a queue), or cgw does not know what the rule does.
UNKNOWN = "unknown"

#: A field that no packet has: whether the rule matches is unknown.
NOT_UNDERSTOOD = "?"
#: A limit that drops what exceeds it.
EXCESS = "excess"
#: Fields that select some of the clients or some of the packets. A rule that drops these, and no
#: others, is not what keeps a client out in general: a ban, for example.
_SELECTIVE = {"saddr", EXCESS}


class Range(NamedTuple):
    """An inclusive range of numbers."""

    first: int
    last: int


class Match(NamedTuple):
    """A condition: the packet's field has one of these values (or, negated, none of them)."""

    field: str
    #: Texts (a ``*`` at the end stands for anything), numbers, ranges, addresses and networks.
    values: tuple[object, ...] = ()
    negated: bool = False


class Rule(NamedTuple):
    """Matches, all of which must be true, and an action."""

    matches: tuple[Match, ...]
    action: str
    #: The chain of JUMP and GOTO.
    target: str = ""
    #: How people find the rule.
    text: str = ""


class Chain(NamedTuple):
    """A base chain. Other chains are only rules by name."""

    #: Who has it, as commands name it: ``inet mine``, or ``filter`` of iptables.
    table: str
    name: str
    #: prerouting, input, forward, output or postrouting.
    hook: str
    priority: int
    policy: str
    #: The IP versions whose packets meet it.
    families: tuple[int, ...]
    #: The program that changes it: nft, iptables, ip6tables, iptables-legacy ...
    tool: str
    #: All chains of the table: name -> rules.
    rules: Mapping[str, tuple[Rule, ...]]
    #: Whether only the process that made the table may change it (``flags owner`` of nft).
    is_owned: bool = False

    @property
    def is_of_bridge(self) -> bool:
        """Whether the chain sees frames on bridges, not packets."""
        return self.table.startswith("bridge ")

    @property
    def sets_marks(self) -> bool:
        """Whether a rule of the table gives packets a mark."""
        return any(rule.action == MARK for rules in self.rules.values() for rule in rules)


class Outcome(NamedTuple):
    """What may happen to a packet, and which chain and rule decide it."""

    action: str
    #: The chain of the rule; empty for a policy.
    chain: str = ""
    rule: str = ""


#: Field -> value. A field that is missing has an unknown value; a ``Range`` is one of these ports.
Packet = dict[str, object]
#: The fields by which packets of one kind differ.
VARYING = ("saddr", "daddr", "sport", "dport")
_PASSES = frozenset({Outcome(CONTINUE)})
_DEEPEST = 16  # NFT_JUMP_STACK_SIZE


def outcomes(chain: Chain, packet: Packet) -> frozenset[Outcome]:
    """Return what may happen to a packet in a base chain; each one accepts, drops or is unknown."""
    found = _walk(chain, chain.name, packet, 0)
    decided = {outcome for outcome in found if outcome.action != CONTINUE}
    if len(decided) < len(found):
        decided.add(Outcome(chain.policy))
    return frozenset(decided)


def for_packets_like(chain: Chain, packet: Packet) -> Chain:
    """Return the chain with those rules alone that can match packets like this one.

    Packets are alike if only their addresses and ports differ. Thousands of published ports have
    few kinds of packets.
    """
    alike = {field: value for field, value in packet.items() if field not in VARYING}
    rules: dict[str, tuple[Rule, ...]] = {}
    for name, found in chain.rules.items():
        rules[name] = tuple(
            rule._replace(matches=tuple(m for m in rule.matches if _holds(m, alike) is not True))
            for rule in found
            if rule.action not in {CONTINUE, MARK}
            and not any(_holds(match, alike) is False for match in rule.matches)
        )
    return chain._replace(rules=rules)


class Kinds:
    """The chains as the kinds of packets meet them: each is worked out once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, frozenset[tuple[str, object]]], Chain] = {}

    def chain_for(self, chain: Chain, packet: Packet) -> Chain:
        """Return the chain for a packet of this kind (``for_packets_like``)."""
        alike = frozenset(item for item in packet.items() if item[0] not in VARYING)
        key = id(chain), alike
        if key not in self._known:
            self._known[key] = for_packets_like(chain, packet)
        return self._known[key]


def _walk(chain: Chain, name: str, packet: Packet, depth: int) -> frozenset[Outcome]:
    """Return the possible outcomes of one chain; CONTINUE is one if its end may be reached."""
    possible: set[Outcome] = set()
    if depth > _DEEPEST:
        return frozenset({Outcome(UNKNOWN, name)})
    for rule in chain.rules.get(name, ()):
        matches = _matches(rule, packet)
        if matches is False or rule.action in {CONTINUE, MARK}:
            continue
        if rule.action in {JUMP, GOTO}:
            found = _walk(chain, rule.target, packet, depth + 1)
        elif rule.action == RETURN:
            found = _PASSES
        else:
            found = frozenset({Outcome(rule.action, name, rule.text)})
        if rule.action == JUMP:
            possible |= found - _PASSES
            ends_here = not found & _PASSES
        else:
            # After goto and return, the rest of this chain is not looked at.
            possible |= found
            ends_here = True
        if matches and ends_here:
            return frozenset(possible)
    return frozenset(possible | _PASSES)


def _matches(rule: Rule, packet: Packet) -> bool | None:
    """Whether a rule matches a packet; None if that is not known."""
    result: bool | None = True
    for match in rule.matches:
        found = _holds(match, packet)
        if found is False:
            return False
        if found is None:
            if rule.action == DROP and match.field in _SELECTIVE and not match.negated:
                return False
            result = None
    return result


def _holds(match: Match, packet: Packet) -> bool | None:
    if match.field not in packet:
        return None
    value = packet[match.field]
    if isinstance(value, Range):
        found = _covers(match.values, value)
        return None if found is None else found != match.negated
    values = value if isinstance(value, frozenset) else (value,)
    return any(_is(one, wanted) for one in values for wanted in match.values) != match.negated


def _covers(wanted: tuple[object, ...], ports: Range) -> bool | None:
    """Whether values match all of these ports (True) or none (False); None if only some."""
    spans = [each if isinstance(each, Range) else Range(each, each) for each in wanted]  # type: ignore[arg-type]
    common = [s for s in spans if s.first <= ports.last and ports.first <= s.last]
    if not common:
        return False
    is_whole = any(s.first <= ports.first and ports.last <= s.last for s in common)
    return True if is_whole else None


def _is(value: object, wanted: object) -> bool:
    if isinstance(wanted, IPv4Network | IPv6Network):
        version = getattr(value, "version", None)
        return version == wanted.version and value in wanted
    if isinstance(wanted, Range):
        return isinstance(value, int) and wanted.first <= value <= wanted.last
    if isinstance(wanted, str) and wanted.endswith("*"):
        return isinstance(value, str) and value.startswith(wanted[:-1])
    return value == wanted

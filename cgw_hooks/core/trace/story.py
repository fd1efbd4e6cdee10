"""The story of a traced packet: what each chain did with it, in words."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cgw_hooks.core.trace.events import Packet
    from cgw_hooks.core.trace.passage import Passage, Visit

    #: Table, chain and handle of a rule -> its text.
    Texts = Mapping[tuple[str, str, int], str]

CONNECTION_TRACKING = "connection tracking"
#: A rule with one of these words translates addresses, in the language of nft or of iptables.
_TRANSLATING = ("dnat", "snat", "masquerade", "redirect", "netmap")
_REFUSING = ("reject",)


class Step(NamedTuple):
    """What happened to the packet at one place."""

    #: ``ip filter FORWARD``, or ``connection tracking``.
    place: str
    #: accepted, translated, dropped, rejected, taken over
    what: str
    #: By which rule; empty for a chain's policy.
    rule: str = ""
    #: The packet behind this place; None if it was not translated.
    packet: Packet | None = None
    #: The chain of the rule, if it is not the base chain.
    chain: str = ""

    @property
    def is_end(self) -> bool:
        """Whether the packet's way ended here."""
        return self.what in {"dropped", "rejected", "taken over"}

    def __str__(self) -> str:
        """Return the step as one line."""
        by = f"by rule `{self.rule}`" if self.rule else "by its policy"
        where = f" in {self.chain}" if self.chain else ""
        if self.what == "translated":
            return f"{self.place}: translated to {self.packet}"
        if self.is_end:
            return f"{self.place}: {self.what.upper()} {by}{where}  <- it ended here"
        return f"{self.place}: {self.what} {by}{where}"


def steps(passage: Passage, texts: Texts) -> Iterator[Step]:
    """Yield what happened, in order. ``texts`` has the rules that ended visits."""
    following = (*passage.visits[1:], None)
    for visit, later in zip(passage.visits, following, strict=True):
        behind = later.packet if later else None
        is_translated = bool(visit.packet and behind and visit.packet.ends != behind.ends)
        rule = texts.get(visit.rule, "") if visit.rule else ""
        words = rule.lower().replace("-", " ").split()
        if is_translated and not visit.is_own and any(word in words for word in _TRANSLATING):
            yield Step(f"{visit.table} {visit.chain}", "translated", rule, behind)
            continue
        if not visit.is_own:
            yield _step(visit, rule, words)
        if is_translated:
            yield Step(CONNECTION_TRACKING, "translated", packet=behind)


def rules(passage: Passage) -> list[tuple[str, str, int]]:
    """Return the rules whose text the story needs: table, chain and handle."""
    return [visit.rule for visit in passage.visits if visit.rule and not visit.is_own]


def _step(visit: Visit, rule: str, words: list[str]) -> Step:
    last = visit.decision
    if last.verdict == "drop":
        what = "rejected" if any(word in words for word in _REFUSING) else "dropped"
    else:
        what = "taken over" if visit.is_end else "accepted"
    chain = last.chain if last.chain != visit.chain else ""
    place = f"{visit.table} {visit.chain}"
    if visit.rule and not rule:
        rule = f"handle {last.handle}"
    return Step(place, what, rule, chain=chain)

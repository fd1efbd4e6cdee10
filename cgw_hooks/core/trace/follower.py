"""Follows packets by the events of nft's trace: which events tell of one packet, and of its answer.

Other traces of the host are told of as well. Their packets do not count.
"""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.rules.trace_table import (
    ANSWER,
    REQUEST,
    WHOLE,
    WHOLE_ANSWER,
    WHOLE_REQUEST,
    begin,
)
from cgw_hooks.core.trace.passage import Passage, visits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address
    from cgw_hooks.core.trace.events import TraceEvent

_BRIDGE = "bridge "
#: The first chains of the trace's own that a packet comes to; the first of a table has its headers.
_BEGINNINGS = frozenset({REQUEST, ANSWER, begin("prerouting"), begin("output")})
#: Chain of the trace's own table -> the role of a packet that it marks.
_ROLES = {REQUEST: REQUEST, ANSWER: ANSWER, WHOLE_REQUEST: REQUEST, WHOLE_ANSWER: ANSWER}
#: Packets of other traces that are remembered: this one may still mark them.
_OTHERS = 256


class Seen(NamedTuple):
    """What the trace has seen of one flow: its first packet, and the first one of its answer."""

    request: Passage | None = None
    answer: Passage | None = None


class Follower:
    """Takes the events of all traces of the host, in order.

    ``own`` is the plain name of this trace's tables. ``guests`` are the addresses of the guest,
    which answers from them.
    """

    def __init__(self, own: str, guests: frozenset[Address]) -> None:
        self._own = own
        self._guests = guests
        self._of_number: dict[int, _Way] = {}
        #: The packets that this trace has marked, in the order in which they came.
        self._ways: list[_Way] = []

    @property
    def seen(self) -> Seen:
        """What was seen of the flow that came first."""
        passages = [(way.role, Passage(visits(way.events))) for way in self._ways]
        request = next((passage for role, passage in passages if role == REQUEST), None)
        if request is None:
            return Seen()
        answers = (passage for role, passage in passages if role == ANSWER)
        return Seen(request, next((a for a in answers if self._is_answer(a, request)), None))

    def add(self, event: TraceEvent) -> None:
        """Take one event."""
        stage = _stage(event) if event.table.partition(" ")[2] == self._own else -1
        way = self._of_number.get(event.packet_id)
        if way is not None and way.is_followed_by(event, stage):
            way = self._of_number[event.packet_id] = _Way()
        if way is None:
            way = next((w for w in self._ways if w.goes_on_with(event, stage)), None) or _Way()
            self._of_number[event.packet_id] = way
            self._forget_others()
        had_role = way.role
        way.add(event, stage)
        # Before the first packet of a client no answer counts.
        if way.role and not had_role and (self._ways or way.role == REQUEST):
            self._ways.append(way)

    def _forget_others(self) -> None:
        if len(self._of_number) <= 2 * _OTHERS:
            return
        numbers = [n for n, way in self._of_number.items() if way not in self._ways]
        for number in numbers[:-_OTHERS]:
            del self._of_number[number]

    def _is_answer(self, answer: Passage, request: Passage) -> bool:
        asked, said = request.last, answer.first
        if asked is None or said is None or said.source not in self._guests:
            return False
        if said.protocol != asked.protocol:  # an ICMP error
            return said.is_refusal and said.destination == asked.source
        return (said.source, said.source_port, said.destination, said.destination_port) == (
            asked.destination, asked.destination_port, asked.source, asked.source_port
        )  # fmt: skip


class _Way:
    """The events of one packet, and how far it has come."""

    def __init__(self) -> None:
        self.events: list[TraceEvent] = []
        self.role = ""
        self._stage = -1
        self._ends: tuple[object, ...] = ()

    def add(self, event: TraceEvent, stage: int) -> None:
        """Take an event of this packet."""
        self.events.append(event)
        self._stage = max(self._stage, stage)
        if stage >= 0:
            self.role = self.role or _ROLES.get(event.chain, "")
        if event.packet:
            self._ends = event.packet.ends

    def is_followed_by(self, event: TraceEvent, stage: int) -> bool:
        """Whether an event under the same number tells of another packet.

        The kernel computes the number from the place of the packet in memory, which is soon used
        again: for example if the client sends the packet again.
        """
        if event.packet is None or event.chain not in _BEGINNINGS:
            return False
        return stage >= 0 and (self._stage < 0 or stage <= self._stage)

    def goes_on_with(self, event: TraceEvent, stage: int) -> bool:
        """Whether the first event under another number tells of the same packet.

        A bridge hands a packet to the node under another device, and the kernel computes the
        number from that too (nft_trace_init). What is assembled of fragments is a new packet.
        """
        is_further = stage > self._stage if stage >= 0 else True
        return is_further and event.packet is not None and self._ends == event.packet.ends


def _stage(event: TraceEvent) -> int:
    """Return how far a packet has come that is in a chain of the trace's own."""
    is_bridged = event.table.startswith(_BRIDGE)
    hook = event.chain.partition("_")[2]
    if hook == "postrouting":
        return 6 if is_bridged else 5
    if is_bridged:
        return 1 if hook == "input" else 0
    if event.chain in {WHOLE, WHOLE_REQUEST, WHOLE_ANSWER}:
        return 3
    return 4 if hook in {"input", "forward", "output"} else 2

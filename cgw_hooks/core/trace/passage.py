"""The way of one packet through the chains of this host, from the events of nft's trace."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.rules.trace_table import ANSWER, HOOKS, REQUEST, begin, end, is_trace_table
from cgw_hooks.core.trace.events import FINAL, RULE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cgw_hooks.core.trace.events import Packet, TraceEvent

#: How a passage ended. DROPPED: by a rule or a policy. HERE: delivered to the node itself. LEFT: by
#: a device. LOST: between two chains, or among the chains of one hook. UNROUTED: after prerouting.
#: BRIDGED: by a bridge, and never to the node.
DROPPED, HERE, LEFT, LOST, UNROUTED = "dropped", "here", "left", "lost", "unrouted"
BRIDGED = "bridged"
_BRIDGE = "bridge "


class Visit(NamedTuple):
    """One base chain that a packet went through, with the chains that it jumps to."""

    table: str
    chain: str
    events: tuple[TraceEvent, ...]

    @property
    def is_own(self) -> bool:
        """Whether the chain belongs to the trace itself."""
        return is_trace_table(self.table)

    @property
    def packet(self) -> Packet | None:
        """The packet's headers when it came to the chain."""
        return self.events[0].packet

    @property
    def decision(self) -> TraceEvent:
        """The event that ended the visit."""
        return self.events[-1]

    @property
    def rule(self) -> tuple[str, str, int] | None:
        """Table, chain and handle of the rule that ended the visit; None if none did."""
        last = self.decision
        return (last.table, last.chain, last.handle) if last.kind == RULE else None

    @property
    def is_end(self) -> bool:
        """Whether the packet's way ended here."""
        return self.decision.verdict in FINAL

    @property
    def jumped_to(self) -> list[str]:
        """The chains that the base chain, or one of those, has jumped to."""
        return [event.target for event in self.events if event.target]


class Passage(NamedTuple):
    """The way of one packet: at least one visit."""

    visits: tuple[Visit, ...]

    @property
    def first(self) -> Packet | None:
        """The packet as it came."""
        return next((visit.packet for visit in self.visits if visit.packet), None)

    @property
    def last(self) -> Packet | None:
        """The packet at the end of its way, translated."""
        return next((visit.packet for visit in reversed(self.visits) if visit.packet), None)

    @property
    def end(self) -> Visit | None:
        """The visit that ended the packet's way, if a rule or policy did."""
        return next((visit for visit in self.visits if visit.is_end), None)

    @property
    def fate(self) -> str:
        """How the way ended: one of the words above."""
        if self.end:
            return DROPPED
        if self.has_reached(end("postrouting")):
            return LEFT
        if not self.hook and self.left_by_port:
            return BRIDGED
        if self.has_reached(end("input")):
            return HERE
        if self.has_reached(end("prerouting")) and not self.has_reached(begin("forward")):
            return LOST if self.has_reached(begin("input")) else UNROUTED
        return LOST

    @property
    def hook(self) -> str:
        """The last hook whose chains the packet came to; empty if it stayed in a bridge."""
        hooks = [hook for hook in HOOKS if self.has_reached(begin(hook))]
        return hooks[-1] if hooks else ""

    @property
    def has_passed(self) -> bool:
        """Whether the packet left this host, or came to the program that it is for."""
        return self.fate in {LEFT, HERE}

    @property
    def came_by(self) -> str:
        """The device, and the port of the bridge if it is one: ``xenbr0 (eth0)``."""
        return _device(
            [visit.events[0].came_by for visit in self._routed()],
            [visit.events[0].came_by for visit in self._bridged("prerouting")],
        )

    @property
    def left_by(self) -> str:
        """The device, and the port of the bridge if it is one: ``guestbr0 (vnet3)``."""
        return _device(
            [visit.events[0].leaves_by for visit in reversed(self._routed())],
            [visit.events[0].leaves_by for visit in self._bridged("postrouting")],
        )

    @property
    def left_by_port(self) -> str:
        """The port of a bridge by which the packet left; empty if it left by none."""
        ports = (visit.events[0].leaves_by for visit in self._bridged("postrouting"))
        return next(filter(None, ports), "")

    def has_reached(self, chain: str) -> bool:
        """Whether the packet has come to a chain of the trace's own table for routed packets."""
        return any(
            event.chain == chain
            for visit in self._routed()
            if visit.is_own
            for event in visit.events
        )

    def _routed(self) -> list[Visit]:
        return [visit for visit in self.visits if not visit.table.startswith(_BRIDGE)]

    def _bridged(self, hook: str) -> list[Visit]:
        names = {begin(hook), end(hook), REQUEST, ANSWER}
        return [
            visit
            for visit in self.visits
            if visit.table.startswith(_BRIDGE) and visit.is_own and visit.chain in names
        ]


def visits(events: Sequence[TraceEvent]) -> tuple[Visit, ...]:
    """Split the events of one packet: the first event of each base chain has the headers."""
    found: list[list[TraceEvent]] = []
    for event in events:
        if event.packet or not found:
            found.append([])
        found[-1].append(event)
    return tuple(Visit(group[0].table, group[0].chain, tuple(group)) for group in found)


def _device(outer: Sequence[str], ports: Sequence[str]) -> str:
    device = next(filter(None, outer), "")
    port = next((port for port in ports if port and port != device), "")
    return f"{device} ({port})" if device and port else device or port

"""Traces the next packet of a client to a published port, and its answer, through this host.

The trace is armed by tables that the kernel deletes when this process ends, whatever ends it: see
`core/rules/trace_table.py`.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import contextmanager, suppress

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.rules.trace_table import Arming, bridge_table, inet_table, table_name
from cgw_hooks.core.trace import story
from cgw_hooks.core.trace.follower import Follower, Seen
from cgw_hooks.core.trace.passage import BRIDGED, DROPPED, HERE, LEFT
from cgw_hooks.errors import RulesetError
from cgw_hooks.host import bridges
from cgw_hooks.host.nft import Nft
from cgw_hooks.host.nft_trace import TraceEvents
from cgw_hooks.host.rule_text import rule_texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Network
    from cgw_hooks.core.trace.story import Texts
    from cgw_hooks.node.traced_port import TracedPort

#: How long a guest's answer is waited for, in seconds. TCP sends a first packet again after 1 s.
PATIENCE = 3.0
#: The last events of a packet come a moment after those that decide.
_REST = 0.15


class Trace(NamedTuple):
    """What was seen, and the text of the rules that decided."""

    seen: Seen
    texts: Texts
    were_lost: bool = False
    #: Whether frames in bridges were traced too.
    has_bridges: bool = True
    #: The devices that lead to other nodes.
    links: tuple[str, ...] = ()
    #: Whether the client came in at this node; else at another one, which has translated.
    is_entry: bool = True


def trace(
    config: NodeConfig,
    traced: TracedPort,
    clients: tuple[Network, ...],
    timeout: float,
    when_armed: Callable[[], None],
) -> Trace:
    """Trace one flow. ``timeout`` is in seconds; ``when_armed`` is called once the trace is armed.

    Raises ``CgwError``.
    """
    guests = frozenset(watched.target for watched in traced.watched)
    networks = {config.guest_network_of(guest) for guest in guests}
    links = tuple(sorted({d for n in networks if n for d in n.internode_devices}))
    seconds = int(timeout + PATIENCE) + 2
    arming = Arming(traced.watched, clients, table_name(os.getpid()), seconds, links)
    with _trace_events() as events, _armed(arming) as has_bridges:
        when_armed()
        found = _listen(events, Follower(arming.name, guests), timeout)
        lost = events.were_lost
    wanted = [rule for way in found if way for rule in story.rules(way)]
    first = found.request and found.request.first
    is_entry = not first or first.destination not in guests
    return Trace(found, rule_texts(wanted, Nft().read), lost, has_bridges, links, is_entry)


def _trace_events() -> TraceEvents:
    try:
        return TraceEvents()
    except OSError as error:
        message = f"its trace cannot be heard: {error.strerror}"
        raise RulesetError("nftables", message, "run it as root, outside of a container") from None


@contextmanager
def _armed(arming: Arming) -> Iterator[bool]:
    """Have the tables of the trace; yield whether frames in bridges are traced too.

    Each table has a handle of its own, which does nothing else: libnftables opens its socket anew
    when a listing was interrupted, and with its socket a table is gone.
    """
    nft, bridge_nft = Nft(), Nft()
    try:
        nft.apply(inet_table(arming))
        has_bridges = False
        with suppress(RulesetError):  # a kernel without nft's bridge family
            bridge_nft.apply(bridge_table(arming))
            has_bridges = True
        yield has_bridges
    finally:
        bridge_nft.close()
        nft.close()


def _listen(events: TraceEvents, follower: Follower, timeout: float) -> Seen:
    """Return what was seen when the answer has passed, or when nothing more is to be expected."""
    found, until, is_rest = Seen(), time.monotonic() + timeout, False
    poller = select.poll()
    poller.register(events.fileno(), select.POLLIN)
    while (left := until - time.monotonic()) > 0:
        if not poller.poll(left * 1000):
            break
        for event in events.read():
            follower.add(event)
        before, found = found, follower.seen
        if is_rest or not found.request:
            continue
        if _is_over(found):
            until, is_rest = time.monotonic() + _REST, True
        elif not before.request:
            until = time.monotonic() + PATIENCE
    return found


def _is_over(found: Seen) -> bool:
    """Whether nothing more can come of this packet."""
    last = found.answer or found.request
    if last is None or last.fate == DROPPED:
        return last is not None
    if found.answer and last.fate == LEFT:
        # The port of a bridge is told a moment after the bridge itself.
        return bool(last.left_by_port) or not bridges.is_bridge(last.left_by)
    return last.fate in ({HERE, BRIDGED} if found.answer else {HERE})

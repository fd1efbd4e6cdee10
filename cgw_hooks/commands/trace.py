"""``cgw trace GUEST:PORT``: the way of a client's next packet through this host, and its answer's.

Standard output has the story; standard error says what is waited for.
"""

from __future__ import annotations

import sys
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from cgw_hooks.commands.json_output import print_json
from cgw_hooks.commands.status import port_members
from cgw_hooks.core.trace import story
from cgw_hooks.core.trace.passage import BRIDGED, HERE, LEFT
from cgw_hooks.errors import CgwError, printable
from cgw_hooks.node import trace, trace_verdict, traced_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.commands.arguments import Namespace
    from cgw_hooks.core.problem import Problem
    from cgw_hooks.core.trace.events import Packet
    from cgw_hooks.core.trace.passage import Passage
    from cgw_hooks.node.publisher import Publisher
    from cgw_hooks.node.trace import Trace
    from cgw_hooks.node.traced_port import TracedPort

#: The version of the format of --json: it changes if a member gets another meaning.
VERSION = 1

#: Whether this is the node where the client came in -> what is said if all is well.
_ANSWERED = {
    True: "the guest answered, and the answer went back",
    False: "the guest answered, and the answer went back to the node where the client came in",
}


def run(publisher: Publisher, arguments: Namespace) -> int:
    """Trace one packet and print its story; return the exit code. Raises ``CgwError``."""
    traced = traced_port.find(publisher, arguments.subject)
    waited = f"{arguments.timeout:g} s"
    if arguments.probe:
        found = _probe(publisher, traced, arguments)
    else:
        waiting = _Waiting(traced, waited)
        found = trace.trace(
            publisher.config, traced, arguments.clients, arguments.timeout, waiting.say
        )
    problem = trace_verdict.problem(publisher.config, traced, found, waited)
    if arguments.json:
        print_json(_as_json(traced, found, problem))
    else:
        for line in _lines(found):
            sys.stdout.write(f"{printable(line)}\n")
        last = str(problem) if problem else _ANSWERED[found.is_entry]
        sys.stdout.write(f"{printable(last)}\n")
    return CgwError.exit_code if problem else 0


class _Waiting(NamedTuple):
    """What a trace waits for, and how long."""

    traced: TracedPort
    waited: str

    def say(self) -> None:
        """Say it."""
        _say(f"waiting for a client's next packet to {self.traced.listen}, at most {self.waited}")


def _probe(publisher: Publisher, traced: TracedPort, arguments: Namespace) -> Trace:
    """Trace a packet that this process sends itself."""
    from cgw_hooks.node import probe

    planned = probe.plan(traced, arguments.clients)
    only = (ip_network(planned.network.source),)
    with probe.sending(planned) as may_send:
        _say(planned.difference)
        return trace.trace(publisher.config, traced, only, arguments.timeout, may_send.set)


def _say(text: str) -> None:
    """Print a line for people that is no part of the story."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def _lines(found: Trace) -> Iterator[str]:
    names = (("client", found.seen.request), ("answer", found.seen.answer))
    for name, way in names:
        if way:
            yield from _passage(name, way, found)
    request = found.seen.request
    if request and request.left_by_port in found.links:
        yield (
            f"{request.left_by_port} leads to another node, which runs the guest: run the same "
            "there to see the rest"
        )
    if found.were_lost:
        yield "some events were lost: the way may have gaps"
    if not found.has_bridges:
        yield "frames in bridges were not traced: this kernel has no nft for bridges"


def _passage(name: str, way: Passage, found: Trace) -> Iterator[str]:
    came = f" came in by {way.came_by}" if way.came_by else " was sent by this host"
    yield f"{name} {way.first}{came}"
    for step in story.steps(way, found.texts):
        yield f"  {step}"
    if way.fate in {LEFT, BRIDGED}:
        yield f"  left by {way.left_by}: {way.last}"
    elif way.fate == HERE:
        yield f"  came to this host itself: {way.last}"


def _as_json(traced: TracedPort, found: Trace, problem: Problem | None) -> dict[str, Any]:
    request, answer = found.seen
    version = request.first.source.version if request and request.first else 4
    return {
        "version": VERSION,
        "guest": traced.guest.name,
        "uuid": traced.guest.uuid or None,
        **port_members(traced.guest, traced.port_of(version)),
        "request": _passage_as_json(request, found),
        "answer": _passage_as_json(answer, found),
        "problem": problem.as_json() if problem else None,
        "entry": found.is_entry,
        "complete": not found.were_lost,
    }


def _passage_as_json(way: Passage | None, found: Trace) -> dict[str, Any] | None:
    if way is None:
        return None
    return {
        "came_by": way.came_by or None,
        "left_by": way.left_by if way.fate in {LEFT, BRIDGED} else None,
        "fate": way.fate,
        "packet": _packet(way.first),
        "last": _packet(way.last),
        "steps": [
            {
                "place": step.place,
                "chain": step.chain or None,
                "what": step.what,
                "rule": step.rule or None,
                "packet": _packet(step.packet),
            }
            for step in story.steps(way, found.texts)
        ],
    }


def _packet(packet: Packet | None) -> dict[str, Any] | None:
    if packet is None:
        return None
    return {
        "protocol": packet.protocol,
        "source": str(packet.source),
        "source_port": packet.source_port or None,
        "destination": str(packet.destination),
        "destination_port": packet.destination_port or None,
        "flags": packet.flags or None,
    }

"""Checks whether other programs' rules drop the packets of published ports."""

from __future__ import annotations

from cgw_hooks.core import firewall_cures, port_packets
from cgw_hooks.core.finding import Finding, fail, warn
from cgw_hooks.core.firewall_cures import Stopped
from cgw_hooks.core.packet_filter import DROP, Kinds, Outcome, outcomes
from cgw_hooks.core.problem import Problem
from cgw_hooks.node.firewall_exceptions import bridges_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.packet_filter import Chain
    from cgw_hooks.core.port_packets import Met
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.node.checks.facts import Facts, GuestPort

#: libvirt's chains; another check decides about them for guests on libvirt's networks.
_OF_LIBVIRT = ("LIBVIRT_", "guest_input", "guest_output", "guest_cross")
_MOST_NAMED = 3


def other_rules(facts: Facts) -> Iterator[Finding]:
    """Find the chains of other programs that drop packets of published ports, or may do so."""
    stopped: dict[tuple[object, ...], tuple[Stopped, _Drop, list[PublishedPort]]] = {}
    for guest_port in facts.ways:
        way = facts.packets_of(guest_port)
        for number, chain in enumerate(facts.chains if way.device else ()):
            if way.port.family not in chain.families:
                continue
            for packets in (port_packets.of_client, port_packets.on_bridge):
                drop = _worst(chain, packets(way, chain), facts.kinds)
                if drop is None or _is_for_other_check(guest_port, drop):
                    continue
                met, outcome, is_certain = drop
                place = Stopped(chain, way.device, met.is_answer, met.is_bridged, outcome.chain)
                key = number, *place[1:], outcome, is_certain
                stopped.setdefault(key, (place, drop, []))[2].append(way.port)
    for place, (_, outcome, is_certain), ports in stopped.values():
        problem = _problem(place, outcome, ports, is_certain=is_certain)
        yield fail(problem) if is_certain else warn(problem)


def _is_for_other_check(guest_port: GuestPort, drop: _Drop) -> bool:
    """Whether libvirt's firewall drops it, and cgw has an exception there."""
    is_libvirts = drop[1].chain.startswith(_OF_LIBVIRT)
    return is_libvirts and guest_port.device in bridges_of(guest_port.record)


def keeps_node_out(facts: Facts, way: port_packets.Way) -> bool:
    """Whether rules of this host may drop a connection of the node itself to a guest."""
    return any(
        way.port.family in chain.families
        and _worst(chain, port_packets.of_node(way, chain), facts.kinds)
        for chain in facts.chains
    )


#: What is dropped, by what, and whether that is certain.
_Drop = tuple["Met", Outcome, bool]


def _worst(chain: Chain, packets: Iterator[Met], kinds: Kinds) -> _Drop | None:
    """Return the first packet that is dropped for certain, else the first that may be."""
    possible = None
    for met in packets:
        found = outcomes(kinds.chain_for(chain, met.packet), met.packet)
        drops = sorted(outcome for outcome in found if outcome.action == DROP)
        if not drops:
            continue
        if len(drops) == len(found):
            return met, drops[0], True
        possible = possible or (met, drops[0], False)
    return possible


def _problem(
    stopped: Stopped, outcome: Outcome, ports: list[PublishedPort], *, is_certain: bool
) -> Problem:
    chain = stopped.chain
    by = f"by its policy {chain.policy}" if not outcome.rule else f"by {outcome.rule}"
    if outcome.chain and outcome.chain != chain.name:
        by += f" (in chain {outcome.chain})"
    listens = list(dict.fromkeys(port.listen for port in ports))
    named = ", ".join(listens[:_MOST_NAMED])
    if len(listens) > _MOST_NAMED:
        named += f" and {len(listens) - _MOST_NAMED} more"
    what = "the packets"
    if stopped.is_bridged:
        what = f"with br_netfilter, the packets on bridge {stopped.device}"
    elif stopped.is_answer:
        what = f"the answers of guests on {stopped.device}"
    verb = "drops" if is_certain else "may drop"
    command = firewall_cures.command(stopped, ports)
    cure = f"run: {command}" if command else f"let the program that made it accept {named}"
    if chain.table.endswith(" firewalld"):
        cure = firewall_cures.cure_of_firewalld(outcome.chain)
    message = f"chain {chain.name} ({chain.hook}) {verb} {what} of {named} {by}"
    return Problem("other-firewall", f"table {chain.table} ({chain.tool})", message, cure)

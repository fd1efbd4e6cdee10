"""Finds the command that lets a traced packet pass which a chain has dropped."""

from __future__ import annotations

from cgw_hooks.core import firewall_cures
from cgw_hooks.core.trace.cures import cure_of_owner, other_cure
from cgw_hooks.errors import RulesetError
from cgw_hooks.host import routes
from cgw_hooks.host.nft import Nft
from cgw_hooks.node import other_firewalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.packet_filter import Chain
    from cgw_hooks.core.trace.passage import Passage, Visit
    from cgw_hooks.node.traced_port import TracedPort

#: The command of iptables -> nft's word for its IP family.
_FAMILIES = {"iptables": "ip", "ip6tables": "ip6"}


def cure_of(traced: TracedPort, way: Passage, *, is_answer: bool) -> str:
    """Return what lets the packet pass that a chain has dropped."""
    visit, first = way.end, way.first
    if visit is None or first is None:
        return ""
    of_owner = cure_of_owner(visit)
    if of_owner:
        return of_owner
    port = traced.single_port(first.source.version)
    route = routes.route_to(port.target_address) if port.target_address else None
    chain = _chain(visit)
    if chain and route:
        stopped = firewall_cures.Stopped(chain, route.device, is_answer)
        command = firewall_cures.command(stopped, [port])
        if command:
            return f"run: {command}"
    return other_cure(visit, is_answer=is_answer)


def _chain(visit: Visit) -> Chain | None:
    """Return the base chain that was visited; None if it is one of a bridge, or gone."""
    try:
        chains = other_firewalls.read_chains(Nft())
    except RulesetError:
        return None
    for chain in chains:
        family = _FAMILIES.get(chain.tool)
        table = f"{family} {chain.table}" if family else chain.table
        if (table, chain.name) == (visit.table, visit.chain):
            return chain
    return None

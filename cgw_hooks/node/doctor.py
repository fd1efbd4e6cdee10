"""Finds out why clients cannot reach a guest: ``cgw doctor``.

It finds all that ``cgw status`` finds, and more: it reads the rules of all firewalls, asks the
guests' links and connects to the guests. It changes nothing.

To add a check, write one function in a module of ``node/checks`` that takes the facts and yields
findings, and give it a place in ``CHECKS``.
"""

from __future__ import annotations

from contextlib import suppress

from cgw_hooks.core.finding import Finding, Verdict, fail, unknown
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import (
    CgwError,
    PortConflict,
    RecordError,
    RegistryError,
    ReplicationError,
)
from cgw_hooks.host.state.lock import LockError
from cgw_hooks.node.checks import answers, firewalls, installation, kernel, links
from cgw_hooks.node.checks.status import problems_but, problems_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cgw_hooks.node.checks.facts import Facts


class Check(NamedTuple):
    """One question, and what it means that the check passes."""

    name: str
    find: Callable[[Facts], Iterable[Finding]]
    passed: str


#: An invalid config keeps the facts from being found out: whoever reads it reports that.
CONFIG = "config"


def _config(_facts: Facts) -> Iterator[Finding]:
    yield from ()


_TREE = "spanning-tree"
#: Published ports work nevertheless, or these are the faults of others.
_OF_CLUSTER = (RegistryError.code, ReplicationError.code, _TREE)
#: The checks, in the order of their findings: what is nearer to the root of a fault comes first.
CHECKS = (
    Check(CONFIG, _config, "the configuration is valid"),
    Check("modules", installation.modules, "the Python modules are there"),
    Check("state", problems_of(RecordError.code, LockError.code), "the records can be read"),
    Check("kernel", installation.kernel, "the kernel takes the ruleset"),
    Check("hooks", installation.hooks, "where libvirt runs, it runs the hooks, and they work"),
    Check("agent", installation.agent, "the agent runs"),
    Check("device", links.device, "the guests' devices are up"),
    Check("forwarding", kernel.forwarding, "the kernel forwards the ports' packets"),
    Check("gateway", problems_of("gateway"), "the gateway has all that cgw node up has set"),
    Check("settings", kernel.gateway_sysctls, "the kernel's settings are those of a gateway"),
    Check("route", links.route, "the guests are on links of this node"),
    Check("rules", problems_of("rules", "elements"), "the ruleset has all published ports"),
    Check("libvirt-firewall", problems_of("firewall"), "libvirt's firewall lets the ports in"),
    Check("other-firewalls", firewalls.other_rules, "no other program's rule drops their packets"),
    Check("reverse-path", kernel.reverse_path, "no packet is dropped for the way that it came"),
    Check("listeners", problems_of(PortConflict.code, "withheld"), "no process has their ports"),
    Check("status", problems_but(*_OF_CLUSTER), "cgw status finds nothing else"),
    Check("neighbour", links.one_neighbour, "one host answers for each guest's address"),
    Check("neighbour-entry", links.neighbour_entry, "the node knows the guests' MAC addresses"),
    Check("service", answers.service, "the guests accept connections"),
    Check("registry", problems_of(RegistryError.code), "nothing is wrong with the registry"),
    Check("replication", problems_of(ReplicationError.code), "connections are replicated"),
    Check("spanning-tree", problems_of(_TREE), "a guest that arrives is heard at once"),
)

_ORDER = list(Verdict)


def examine(facts: Facts, checks: Iterable[Check] = CHECKS) -> list[Finding]:
    """Return the findings of all checks, the worst ones first. Each problem occurs once."""
    found: list[Finding] = []
    seen: set[Problem] = set()
    with suppress(CgwError):  # the checks will say so
        facts.begin_probes()
    for check in checks:
        new = [each for each in _look(check, facts) if each.problem not in seen]
        for each in new:
            if each.problem and each.problem not in seen:
                seen.add(each.problem)
                found.append(each._replace(check=check.name))
        if not new:
            found.append(Finding(Verdict.PASS, None, check.name))
    found.sort(key=lambda each: _ORDER.index(each.verdict))
    return found


def _look(check: Check, facts: Facts) -> list[Finding]:
    try:
        return list(check.find(facts))
    except CgwError as error:
        return [fail(Problem.of(error))]
    except OSError as error:
        message = f"the check {check.name} cannot be made: {error}"
        return [unknown(Problem("error", "node", message))]

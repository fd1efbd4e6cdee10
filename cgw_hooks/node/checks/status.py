"""Checks whose work ``cgw status`` has done: its problems, by their codes."""

from __future__ import annotations

from cgw_hooks.core.finding import Finding, fail, warn
from cgw_hooks.core.problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgw_hooks.node.checks.facts import Facts

#: Published ports work nevertheless.
_WARNINGS = {"extra-elements", "spanning-tree", "replication"}


def problems_of(*codes: str) -> Callable[[Facts], Iterator[Finding]]:
    """Return the check that finds the problems with these codes."""

    def check(facts: Facts) -> Iterator[Finding]:
        for problem in facts.problems:
            if problem.code in codes:
                yield warn(problem) if problem.code in _WARNINGS else fail(problem)

    return check


def problems_but(*codes: str) -> Callable[[Facts], Iterator[Finding]]:
    """Return the check that finds all other problems.

    Those that a check before it has found already are not repeated.
    """

    def check(facts: Facts) -> Iterator[Finding]:
        if facts.missing_guest:
            yield fail(Problem.of(facts.missing_guest))
        for problem in facts.problems:
            if problem.code not in codes:
                yield warn(problem) if problem.code in _WARNINGS else fail(problem)

    return check

"""Checks whose work ``cgw status`` has done: its problems, by their codes."""

from __future__ import annotations

from cgw_hooks.core.finding import Finding, fail, warn

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


def all_problems(facts: Facts) -> Iterator[Finding]:
    """Find all problems; those that another check has found already are not repeated."""
    if facts.missing_guest:
        from cgw_hooks.core.problem import Problem

        yield fail(Problem.of(facts.missing_guest))
    for problem in facts.problems:
        yield warn(problem) if problem.code in _WARNINGS else fail(problem)

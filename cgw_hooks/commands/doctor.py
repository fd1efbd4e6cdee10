"""``cgw doctor``: the verdicts of all checks, the worst ones first, each with its cure."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from cgw_hooks.agent import client
from cgw_hooks.commands import schemas
from cgw_hooks.commands.json_output import print_json
from cgw_hooks.core.finding import Finding, Verdict, fail
from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import CgwError, InvalidConfig, printable
from cgw_hooks.node.checks.facts import Facts
from cgw_hooks.node.doctor import CHECKS, CONFIG, examine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgw_hooks.commands.arguments import Namespace
    from cgw_hooks.node.publisher import Publisher

#: The version of the format: it changes if a member is removed or gets another meaning.
VERSION = 1
_PASSED = {check.name: check.passed for check in CHECKS}


def run(publisher: Callable[[], Publisher], arguments: Namespace) -> int:
    """Carry out the command; return the exit code. Raises ``CgwError`` if this is not root."""
    if arguments.schema:
        sys.stdout.write(f"{schemas.DOCTOR}\n")
        return 0
    if os.geteuid() != 0:
        raise CgwError("cgw doctor", "it reads what only root can read", "run it as root")
    name = ""
    try:
        node = publisher()
    except InvalidConfig as error:  # nothing else can be checked
        found = [fail(Problem.of(error))._replace(check=CONFIG)]
    else:
        name = node.config.name
        absence = client.absence()
        found = examine(
            Facts(node, arguments.guest, absence=Problem.of(absence) if absence else None)
        )
    if arguments.json:
        print_json(as_json(found, name))
    else:
        print_findings(found, verbose=arguments.verbose)
    return 0 if is_well(found) else CgwError.exit_code


def as_json(found: list[Finding], node: str) -> dict[str, Any]:
    """Return all findings for ``--json``, as schemas/doctor.json describes it."""
    return {"version": VERSION, "node": node or None, "checks": [_row(each) for each in found]}


def _row(finding: Finding) -> dict[str, Any]:
    problem = finding.problem
    return {
        "check": finding.check,
        "verdict": finding.verdict.value,
        "problem": problem.as_json() if problem else None,
        "command": (problem.command or None) if problem else None,
    }


def is_well(found: list[Finding]) -> bool:
    """Whether no check fails."""
    return not any(each.verdict is Verdict.FAIL for each in found)


def print_findings(found: list[Finding], *, verbose: bool) -> None:
    """Print the findings for people."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines(found, verbose=verbose)))


def lines(found: list[Finding], *, verbose: bool) -> Iterator[str]:
    """Yield the lines that ``print_findings`` prints."""
    width = max(len(each.check) for each in found)
    passed = [each for each in found if each.verdict is Verdict.PASS]
    for each in found:
        problem = each.problem
        begin = f"{each.verdict.value.upper():7}  {each.check:{width}}  "
        if problem:
            yield f"{begin}{problem.subject}: {problem.message}"
            if problem.cure:
                yield f"{'':7}  {'cure:':>{width}}  {problem.command or problem.cure}"
        elif verbose:
            yield f"{begin}{_PASSED[each.check]}"
    if not verbose and passed:
        yield f"{len(passed)} of {len(CHECKS)} checks passed (--verbose lists them)"

"""``cgw sync``: makes the node match the guests that run, and says what changed."""

from __future__ import annotations

import json as json_module
import sys
from typing import TYPE_CHECKING

from cgw_hooks.errors import CgwError, printable
from cgw_hooks.host.ruleset_generation import wait_until_quiet
from cgw_hooks.node.reconcile import sync
from cgw_hooks.node.sync_log import SyncLog

if TYPE_CHECKING:
    from cgw_hooks.node.publisher import Publisher
    from cgw_hooks.node.reconcile import Report


#: Other programs restore their rules one after the other; after this pause all are done.
_QUIET_SECONDS = 2.0
_LONGEST_WAIT_SECONDS = 30.0


def run(publisher: Publisher, *, json: bool, settle: bool = False) -> int:
    """Carry out the sync; return the exit code. Raises ``CgwError``.

    With ``settle``, sync again when no rule of this host has changed for a while.
    """
    report = sync(publisher)
    log = SyncLog("sync")
    log.write(report)
    if settle:
        wait_until_quiet(seconds=_QUIET_SECONDS, at_most=_LONGEST_WAIT_SECONDS)
        again = sync(publisher)
        log.write(again)
        report = again._replace(
            published=[*report.published, *again.published],
            withdrawn=[*report.withdrawn, *again.withdrawn],
            repaired=[*report.repaired, *again.repaired],
        )
    if json:
        sys.stdout.write(json_module.dumps(_as_json(report), indent=2) + "\n")
    else:
        for line in _lines(report):
            sys.stdout.write(f"{printable(line)}\n")
        for problem in report.problems:
            sys.stderr.write(f"cgw: {printable(str(problem))}\n")
    return CgwError.exit_code if report.problems else 0


def _lines(report: Report) -> list[str]:
    return [
        *(f"published  {record.guest.name}" for record in report.published),
        *(f"withdrawn  {record.guest.name}" for record in report.withdrawn),
        *(f"repaired   {what}" for what in report.repaired),
    ]


def _as_json(report: Report) -> dict[str, object]:
    return {
        "published": [record.guest.name for record in report.published],
        "withdrawn": [record.guest.name for record in report.withdrawn],
        "repaired": report.repaired,
        "problems": [problem.as_json() for problem in report.problems],
    }

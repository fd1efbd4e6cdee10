"""The command lines of ``cgw status``, ``cgw flows`` and ``cgw log``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgw_hooks.commands.command_parser import Watch, parsed_by
from cgw_hooks.core.parse.log_time import parse_count, parse_since

if TYPE_CHECKING:
    from cgw_hooks.commands.command_parser import Commands


def add_status(commands: Commands) -> None:
    """Add ``cgw status``."""
    status = commands.add_with_json(
        "status",
        "Show what is published, and what is wrong. Each problem names its cure. No packet is "
        "sent, and nothing is changed.",
        graph="print a graph, for dot -Tsvg (Graphviz)",
    )
    status.add_argument(
        "guest", nargs="?", metavar="GUEST", help="only this guest, by its name or uuid"
    )
    status.add_argument(
        "--schema", action="store_true", help="print the path of the JSON Schema of --json"
    )
    status.add_argument(
        "--cluster",
        action="store_true",
        help="all guests of the cluster, and at which nodes their ports are open",
    )
    status.add_argument(
        "--figures",
        action="store_true",
        help="also connections since a port was published, those that are open now, and bytes",
    )
    status.add_argument(
        "--watch",
        action=Watch,
        nargs="?",
        metavar="SECONDS",
        help="look again every two seconds, or so many, until Ctrl-C",
    )
    status.set_defaults(watched=None)


def add_flows(commands: Commands) -> None:
    """Add ``cgw flows``."""
    flows = commands.add_with_json(
        "flows",
        "Show the open connections to published ports: the client, whom the guest sees, bytes and "
        "age. Only connections that came in at this node are known.",
    )
    flows.add_argument(
        "guest", nargs="?", metavar="GUEST", help="only this guest, by its name or uuid"
    )


def add_log(commands: Commands) -> None:
    """Add ``cgw log``."""
    log = commands.add_with_json(
        "log",
        "Show who published what, and when, from the journal or the files of syslog.",
    )
    log.add_argument(
        "guest", nargs="?", metavar="GUEST", help="only this guest, by its name or uuid"
    )
    log.add_argument(
        "--since",
        type=parsed_by(parse_since),
        metavar="TIME",
        help="from this time on: 2026-11-30, 2026-11-30T14:00, or 2h for two hours ago",
    )
    log.add_argument(
        "-n",
        "--lines",
        type=parsed_by(parse_count),
        metavar="COUNT",
        help="only so many of the last entries; default, without --since: 50",
    )

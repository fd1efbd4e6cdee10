"""The command line of ``cgw trace``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgw_hooks.commands.command_parser import Once, parsed_by
from cgw_hooks.core.parse import fields, port_spec

if TYPE_CHECKING:
    from cgw_hooks.commands.command_parser import Commands

#: Seconds.
_USUAL, _LONGEST = 30, 86400


def add_to(commands: Commands) -> None:
    """Add the command."""
    trace = commands.add_with_json(
        "trace",
        "Show the way of a client's next packet to a published port, and of its answer. Each "
        "table that it meets on this host is named, and the rule that ended it.",
    )
    trace.add_argument(
        "subject",
        metavar="GUEST:PORT",
        help="the guest's name or uuid, and its published port: web1:8080, web1:5353/udp, "
        "web1:192.0.2.1:8080",
    )
    trace.add_argument(
        "--from",
        dest="clients",
        action=Once,
        type=parsed_by(fields.parse_networks),
        default=(),
        metavar="NETWORK[,NETWORK]",
        help="only a client of one of these networks",
    )
    trace.add_argument(
        "--probe",
        action="store_true",
        help="be the client oneself: connect once, from a network namespace; with --from, from "
        "this address",
    )
    trace.add_argument(
        "--timeout",
        type=parsed_by(_parse_timeout),
        default=_USUAL,
        metavar="SECONDS",
        help=f"how long to wait for a client; {_USUAL} without it",
    )


def _parse_timeout(text: str) -> int:
    """Parse a time in seconds; ``30s`` and ``2m`` are understood too."""
    try:
        seconds = port_spec.parse_duration(f"{text}s" if text.isdigit() else text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"give 1 to {_LONGEST} seconds")
    return seconds

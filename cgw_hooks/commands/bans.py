"""``cgw deny`` and ``cgw allow``: bans of clients, and their list."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cgw_hooks.commands.status_table import table
from cgw_hooks.core import bans as core_bans
from cgw_hooks.core.bans import NO_END
from cgw_hooks.core.parse import fields
from cgw_hooks.errors import CgwError, InvalidBan, printable, quoted
from cgw_hooks.node import ban_keeper, bans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.commands.arguments import Namespace
    from cgw_hooks.core.published_port import Network
    from cgw_hooks.node.publisher import Publisher

#: The version of the format of ``--json``.
_VERSION = 1
#: How many clients a command names one by one.
_NAMED = 20


def run(publisher: Publisher, arguments: Namespace) -> int:
    """Carry out ``cgw deny`` or ``cgw allow``; return the exit code. Raises ``CgwError``."""
    if "force" not in arguments:
        return _allow(publisher, arguments)
    if not arguments.list:
        return _deny(publisher, arguments)
    if arguments.clients or arguments.file:
        raise InvalidBan("cgw deny", "--list bans nobody", "give clients, or --list alone")
    return _show(as_json=arguments.json)


def _deny(publisher: Publisher, arguments: Namespace) -> int:
    clients = _clients(arguments)
    if not clients:
        raise InvalidBan("cgw deny", "no client is given", "give an ADDRESS or NETWORK, or --list")
    until = int(time.time()) + arguments.seconds if arguments.seconds else NO_END
    ended = bans.deny(
        publisher, clients, until=until, maker=arguments.maker or "", force=arguments.force
    )
    if arguments.json:
        rows = [(core_bans.text_of(client), until, arguments.maker or "") for client in clients]
        _print_json(rows, ended=ended)
        return 0
    end = f"until {_local(until)}" if until else "until they are allowed"
    for name in _names(list(map(core_bans.text_of, clients))):
        sys.stdout.write(f"denied  {name}, {end}\n")
    if ended:
        sys.stdout.write(f"ended   {ended} connection{'s' if ended > 1 else ''}\n")
    return 0


def _allow(publisher: Publisher, arguments: Namespace) -> int:
    """Lift bans; return the exit code, which says whether a client is denied still."""
    clients = _clients(arguments)
    if not clients and not (arguments.all or arguments.maker):
        raise InvalidBan("cgw allow", "no client is given", "give an ADDRESS or NETWORK, or --all")
    if clients and arguments.all:
        raise InvalidBan("cgw allow", "--all is every client", "give clients, or --all alone")
    allowed = bans.allow(publisher, clients or bans.EVERYBODY, arguments.maker)
    for name in _names(allowed.clients):
        sys.stdout.write(f"allowed {name}\n")
    still = dict.fromkeys(allowed.still)
    for client, by in still:
        cure = f"run: cgw allow {by}" if "/" in by else "see: cgw deny --list"
        sys.stderr.write(f"cgw: {client}: it is denied still, by {by}; {cure}\n")
    if not allowed.clients and not still:
        sys.stdout.write("nothing was denied\n")
    # A program lifts its own bans alone: those of others are not its concern.
    return CgwError.exit_code if still and arguments.maker is None else 0


def _show(*, as_json: bool) -> int:
    """Print all bans; return the exit code, which says whether they hold."""
    found = ban_keeper.read()
    problems = list(ban_keeper.problems(thoroughly=True))
    rows = [(client, until, maker) for (client, maker), until in sorted(found.items())]
    if as_json:
        _print_json(rows, problems=[problem.as_json() for problem in problems])
    elif rows:
        cells = [(c, _local(until) if until else "-", maker or "-") for c, until, maker in rows]
        for line in table([("CLIENT", "UNTIL", "BY"), *cells], None):
            sys.stdout.write(f"{line}\n")
    else:
        sys.stdout.write("No client is denied.\n")
    for problem in problems if not as_json else ():
        sys.stderr.write(f"cgw: {printable(str(problem))}\n")
    return CgwError.exit_code if problems else 0


def _clients(arguments: Namespace) -> list[Network]:
    """Return the clients of the command line, and of the file that it names."""
    given = [network for networks in arguments.clients for network in networks]
    if arguments.file:
        given += _read(arguments.file)
    return list(dict.fromkeys(given))


def _read(file: str) -> Iterator[Network]:
    """Read a list: one client per line; what follows ``#`` or ``;`` is a comment.

    Raises ``InvalidBan``.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidBan(file, "it is no text", "give one address or network per line") from error
    for number, line in enumerate(text.splitlines(), start=1):
        client = line.partition("#")[0].partition(";")[0].strip()
        if client:
            try:
                yield fields.parse_client(client)
            except ValueError as error:
                raise InvalidBan(
                    f"{file}, line {number}", f"{quoted(client)} cannot be used", str(error)
                ) from None


def _names(clients: list[str]) -> Iterator[str]:
    """Yield the clients, or how many there are if these are very many."""
    yield from clients if len(clients) <= _NAMED else [f"{len(clients)} clients"]


def _local(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _print_json(rows: list[tuple[str, int, str]], **other: object) -> None:
    """Print bans, one per line, and other members of the object."""
    import json

    bans = (
        {"client": client, "until": _utc(until) if until else None, "by": maker or None}
        for client, until, maker in rows
    )
    lines = ",\n    ".join(map(json.dumps, bans))
    members = {
        "version": str(_VERSION),
        "denied": f"[\n    {lines}\n  ]" if rows else "[]",
        **{name: json.dumps(value) for name, value in other.items()},
    }
    text = ",\n".join(f'  "{name}": {value}' for name, value in members.items())
    sys.stdout.write(f"{{\n{text}\n}}\n")

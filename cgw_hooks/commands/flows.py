"""``cgw flows [GUEST]``: the connections to published ports that are open now."""

from __future__ import annotations

import shutil
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cgw_hooks.commands.amounts import length, missing_ages, missing_bytes, size
from cgw_hooks.commands.json_output import print_json
from cgw_hooks.commands.status_table import table
from cgw_hooks.errors import NotFound, printable, quoted
from cgw_hooks.host.tracked_connections import is_counting, is_noting_time
from cgw_hooks.node.figures import open_connections, visible_ports

if TYPE_CHECKING:
    from cgw_hooks.node.figures import GuestConnection
    from cgw_hooks.node.publisher import Publisher

#: The version of the JSON: it changes if a member is removed or gets another meaning.
_VERSION = 1
_HEADINGS = ("GUEST", "CLIENT", "LISTEN", "TARGET", "SEEN AS", "STATE", "RECEIVED", "SENT", "AGE")


def run(publisher: Publisher, name: str | None, *, as_json: bool) -> int:
    """Print the open connections of all guests, or of one. Raises ``CgwError``."""
    records, _ = publisher.state.all()
    ports = visible_ports(records.values())
    if name:
        ports = {port: record for port, record in ports.items() if record.guest.is_called(name)}
        if not any(record.guest.is_called(name) for record in records.values()):
            raise NotFound(quoted(name), "no guest of this name is published", "see: cgw status")
    found = sorted(open_connections(ports), key=_place)
    if as_json:
        print_json(
            {
                "version": _VERSION,
                "counts_bytes": is_counting(),
                "notes_time": is_noting_time(),
                "flows": [_object(each) for each in found],
            }
        )
    else:
        _print(found)
    return 0


def _place(each: GuestConnection) -> tuple[object, ...]:
    flow = each.connection
    client = flow.client
    return each.guest.name, flow.listen.port, client.address.version, client.address, client.port


def _object(each: GuestConnection) -> dict[str, Any]:
    flow = each.connection
    began = flow.began
    return {
        "guest": each.guest.name,
        "uuid": each.guest.uuid or None,
        "protocol": flow.protocol,
        "client": [str(flow.client.address), flow.client.port],
        "listen": [str(flow.listen.address), flow.listen.port],
        "target": [str(flow.target.address), flow.target.port],
        "seen_as": [str(flow.seen_as.address), flow.seen_as.port],
        "state": flow.state,
        "bytes_received": flow.traffic.received if flow.traffic else None,
        "bytes_sent": flow.traffic.sent if flow.traffic else None,
        "began": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds")
        if began
        else None,
    }


def _print(found: list[GuestConnection]) -> None:
    """Print one line for each connection. Lines are folded only on a terminal."""
    if not found:
        sys.stdout.write("No connection is open.\n")
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    now = time.time()
    cells = [_HEADINGS, *(_cells(each, now) for each in found)]
    sys.stdout.write("".join(f"{line}\n" for line in table(cells, width)))
    sys.stdout.flush()
    if any(each.connection.traffic is None for each in found):
        sys.stderr.write(missing_bytes())
    if any(each.connection.began is None for each in found):
        sys.stderr.write(missing_ages())


def _cells(each: GuestConnection, now: float) -> tuple[str, ...]:
    flow = each.connection
    traffic = flow.traffic
    return (
        printable(each.guest.name),
        str(flow.client),
        f"{flow.listen}/{flow.protocol}",
        str(flow.target),
        "itself" if flow.seen_as == flow.client else str(flow.seen_as),
        flow.state,
        size(traffic.received if traffic else None),
        size(traffic.sent if traffic else None),
        length(None if flow.began is None else now - flow.began),
    )

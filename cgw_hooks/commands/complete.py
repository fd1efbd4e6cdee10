"""``cgw complete names|ports|traceable``: the names that shells complete. Errors are silent.

The files in etc/completion call this at a press of Tab, so it must end soon, also if libvirt hangs
or one of its hooks runs.
"""

from __future__ import annotations

import os
import sys
import threading

from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.core.published_port import span
from cgw_hooks.errors import CgwError
from cgw_hooks.host import libvirt_api, paths
from cgw_hooks.host.state.state import State

#: Seconds.
_LONGEST = 2.0


def run(what: str, guest: str) -> int:
    """Print the names of all guests, the ports of one, or all as ``GUEST:PORT``; one per line."""
    if what == "names":
        found = _recorded_names()
    else:
        found = _published_ports(guest) if what == "ports" else _traceable()
    if what == "names":
        asking = threading.Thread(target=_ask_libvirt, args=(found,), daemon=True)
        asking.start()
        asking.join(_LONGEST)
    sys.stdout.write("".join(f"{name}\n" for name in sorted(found) if name.isprintable()))
    sys.stdout.flush()
    os._exit(0)  # not waiting for libvirt


def _records() -> list[tuple[str, str]]:
    """Return name and ports of each guest with a record, as ``8080/tcp``."""
    try:
        records, _ = State(paths.runtime_directory()).all()
    except CgwError:
        return []
    return [
        (record.guest.name, f"{span(port.start, port.end)}/{port.protocol}")
        for record in records.values()
        for port in record.guest.ports
    ]


def _recorded_names() -> set[str]:
    return {name for name, _ in _records()}


def _published_ports(guest: str) -> set[str]:
    return {port for name, port in _records() if name == guest}


def _traceable() -> set[str]:
    """Return what `cgw trace` takes; a range by its first port."""
    return {f"{name}:{port}" for name, port in _records() if "-" not in port}


def _ask_libvirt(found: set[str]) -> None:
    for driver in DRIVERS:
        try:
            found.update(libvirt_api.names(driver))
        except CgwError:
            continue

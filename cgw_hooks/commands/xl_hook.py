"""``cgw hook xl GUEST online|offline VIF /vm/UUID``: what the vif script calls.

On stdin the vif's backend, as ``xenstore-ls -f`` prints it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cgw_hooks.core.parse.vif import DRIVER, backend_vif
from cgw_hooks.core.record import State
from cgw_hooks.errors import InvalidAnnotation, PortConflict, quoted
from cgw_hooks.host import log
from cgw_hooks.host.xenstore import parse_listing
from cgw_hooks.sources.xl import read_vif

if TYPE_CHECKING:
    from cgw_hooks.node.publisher import Publisher


def offline(publisher: Publisher, vif_name: str) -> int:
    """Take back what the vif's record says. Why it went is not known: TCP flows stay."""
    key = f"{DRIVER}-{vif_name}"
    try:
        publisher.hand_back(key)
    finally:
        record = publisher.forget(key, connections_end=False)
    if record and record.guest.ports and record.state is not State.SUCCEEDED:
        log.notice(f"guest {quoted(record.guest.name)}: published no more")
    return 0


def online(publisher: Publisher, name: str, vif_name: str, vm_path: str, listing: str) -> int:
    """Publish what the guest declares for the vif; the exit code refuses it."""
    tree = parse_listing(listing)
    backend = {path.rpartition("/")[2]: value for path, value in tree.items()}
    vif = backend_vif(vif_name, name, vm_path, backend)
    if publisher.records.find(f"libxl-{vif.machine}"):
        return 0  # libvirt's own hook publishes this guest
    try:
        guest = read_vif(publisher.config, vif)
        if guest is None:
            return 0
        publisher.publish(guest)
    except (InvalidAnnotation, PortConflict) as error:
        if publisher.config.policy.refuse_invalid:
            sys.stderr.write(f"cgw: {error}\n")
            return error.exit_code
        publisher.note_problem(vif.key, vif.guest, str(error))
        raise
    log.notice(f"guest {quoted(vif.guest)}: published " + "; ".join(map(str, guest.ports)))
    return 0

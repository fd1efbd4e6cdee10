"""Picks free listening ports for `cgw publish GUEST :PORT`."""

from __future__ import annotations

from cgw_hooks.core.annotation import PortForward
from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.core.parse import domain_scan
from cgw_hooks.core.parse.port_spec import FreePort
from cgw_hooks.errors import CgwError, HypervisorError, PortConflict
from cgw_hooks.host import libvirt_api, listeners
from cgw_hooks.node import listed_ports
from cgw_hooks.sources import static

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.node.publisher import Publisher


def pick(publisher: Publisher, wishes: Iterable[PortForward | FreePort]) -> list[PortForward]:
    """Return the wishes, each ``FreePort`` with a port of ``policy.auto-ports``.

    A port is free if nobody has it at any listening address: no guest that runs or is defined, no
    remote guest, no listener of the node, and no element of the ruleset. Raises ``PortConflict``
    if none is free.
    """
    wishes = list(wishes)
    if not any(isinstance(wish, FreePort) for wish in wishes):
        return [wish for wish in wishes if isinstance(wish, PortForward)]
    taken = _taken(publisher)
    for wish in wishes:
        if isinstance(wish, PortForward):
            taken.update((wish.protocol, n) for n in range(wish.start, wish.end + 1))
    picked = []
    for wish in wishes:
        forward = wish if isinstance(wish, PortForward) else _picked(publisher, wish, taken)
        taken.add((forward.protocol, forward.start))
        picked.append(forward)
    return picked


def _picked(publisher: Publisher, wish: FreePort, taken: set[tuple[str, int]]) -> PortForward:
    policy = publisher.config.policy
    first, last = policy.auto_ports
    allowed = [
        number
        for number in range(first, last + 1)
        if any(start <= number <= end for start, end in policy.listen_ports)
    ]
    for number in allowed:
        if (wish.protocol, number) not in taken:
            return PortForward(
                wish.protocol, wish.listen_address, (), number, number, wish.to, limits=wish.limits
            )
    what = f"no {wish.protocol} port of these is free"
    if not allowed:
        what = "policy.listen-ports allows none of these"
    cure = "name a port, or make the range larger"
    raise PortConflict(f"policy.auto-ports {first}-{last}", what, cure)


def _taken(publisher: Publisher) -> set[tuple[str, int]]:
    """Return protocol and number of each port of ``policy.auto-ports`` that somebody has."""
    lowest, highest = publisher.config.policy.auto_ports
    return {
        (protocol, number)
        for protocol, start, end in _all_ranges(publisher)
        for number in range(max(start, lowest), min(end, highest) + 1)
    }


def _all_ranges(publisher: Publisher) -> Iterator[tuple[str, int, int]]:
    records, _ = publisher.state.all()
    for record in records.values():
        for port in record.guest.ports:
            yield port.protocol, port.start, port.end
    for _, found in static.remote_guests(publisher.config):
        if not isinstance(found, CgwError):
            for port in found.ports:
                yield port.protocol, port.start, port.end
    for port in listed_ports.read(publisher.nft):
        yield port.protocol, port.start, port.end
    for listener in listeners.listening(("tcp", "udp", "sctp")):
        yield listener.protocol, listener.port, listener.port
    yield from _defined_ranges()


def _defined_ranges() -> Iterator[tuple[str, int, int]]:
    """Yield what libvirt's guests publish now or at their next start, as far as it answers."""
    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.parse.domain_xml import parse_domain

    for driver in DRIVERS:
        try:
            definitions = libvirt_api.defined_guests(driver)
        except HypervisorError:
            continue
        for definition in definitions:
            if domain_scan.is_annotated(definition.xml):
                try:
                    found = parse_domain(GuestKey("", ""), definition.name, definition.xml)
                except CgwError:
                    continue
                for forward in found.forwards if found else ():
                    yield forward.protocol, forward.start, forward.end

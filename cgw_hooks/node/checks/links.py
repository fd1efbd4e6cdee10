"""Checks of the links: devices, routes, and who answers for which address."""

from __future__ import annotations

from shlex import quote

from cgw_hooks.core.finding import Finding, fail, warn
from cgw_hooks.core.problem import Problem
from cgw_hooks.host import bridges, neighbours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.host.link_probe import Place
    from cgw_hooks.node.checks.facts import Facts, GuestPort

_UP = "cgw node up"
_ADDRESS = "see in the guest: ip address; and here, whether its device is a port: bridge link"
_MOST_NAMED = 3
_TWICE = "take the address from the host that should not have it"


def device(facts: Facts) -> Iterator[Finding]:
    """Whether the device on whose link each guest is exists, and is up."""
    for name, of in _by_device(facts).items():
        is_up = bridges.is_up(name) if name else True
        if is_up:
            continue
        message = (
            "the device of its guests is down" if is_up is False else "there is no such device"
        )
        commands = [f"ip link set {quote(name)} up"] if is_up is False else []
        # With the device, its IPv6 addresses are gone.
        commands += [_UP] if facts.config.guest_network_of(of.target) else []
        cure = f"run: {'; '.join(commands)}" if is_up is False else f"make it, then run: {_UP}"
        yield fail(Problem("route", name, message, cure))


def _by_device(facts: Facts) -> dict[str, GuestPort]:
    return {facts.link_device(way.target): way for way in facts.ways}


def route(facts: Facts) -> Iterator[Finding]:
    """Whether the kernel's route to each guest is a direct one."""
    for way in facts.ways:
        found = facts.route_to(way.target)
        if found and found.kind == "unicast" and not found.gateway:
            continue
        if found is None:
            how = f"no route leads to {way.target}"
        elif found.gateway:
            how = f"the route to {way.target} leads through the router {found.gateway}"
        else:
            how = f'the route to {way.target} is of the kind "{found.kind}"'
        name = facts.link_device(way.target)
        cure = f"see: ip route get {way.target}"
        if name:
            # The lowest metric takes precedence; that of IPv6 is 1024 if none is named.
            metric = "" if way.port.family == 4 else " metric 1"  # noqa: PLR2004
            cure = f"run: ip route replace {way.target} dev {quote(name)}{metric}"
        yield fail(Problem("route", way.record.guest.title, how, cure))


def one_neighbour(facts: Facts) -> Iterator[Finding]:
    """Whether exactly one host answers for each guest's address, and none for the node's own."""
    who = {(way.device, way.target): way.record.guest.title for way in facts.ways}
    for place, macs in sorted(facts.answering.items(), key=str):
        name, address = place
        if place in facts.own_places:
            if macs:
                yield _of_another(facts, place, macs)
        elif not macs:
            message = f"nobody on {name} answers for its address {address}"
            yield fail(Problem("no-neighbour", who[place], message, _ADDRESS))
        elif len(macs) > 1:
            message = f"several hosts on {name} answer for {address}: {_named(macs)}"
            yield fail(Problem("address-twice", who[place], message, _TWICE))


def _of_another(facts: Facts, place: Place, macs: set[str]) -> Finding:
    """Return the finding of an address of this node that another host answers for."""
    name, address = place
    shared = {network.gateway_address for network in facts.config.guest_networks}
    if address not in shared:
        message = (
            f"another host on {name} answers for this node's address {address}: {_named(macs)}"
        )
        return fail(Problem("address-twice", "node", message, _TWICE))
    message = (
        f"another node answers for the gateway address {address}: {_named(macs)}. Guests may "
        "use it as their gateway, since the ARP filter does not hold for that device"
    )
    cure = f"add the device to internode-devices in cgw.toml, then run: {_UP}"
    return warn(Problem("address-twice", name, message, cure))


def _named(macs: set[str]) -> str:
    """Return MAC addresses with the bridge ports behind which they are."""
    ports = neighbours.bridge_ports()
    shown = sorted(macs)[:_MOST_NAMED]
    named = [f"{mac} (port {ports[mac]})" if mac in ports else mac for mac in shown]
    more = [f"{len(macs) - len(shown)} more"] if len(macs) > len(shown) else []
    return ", ".join([*named, *more])


def neighbour_entry(facts: Facts) -> Iterator[Finding]:
    """Whether the kernel's neighbour table has the MAC address that answers."""
    if not facts.answering:
        return
    known = {(each.device, each.address): each.mac for each in neighbours.neighbours()}
    for way in facts.ways:
        macs = facts.answering.get((way.device, way.target), set())
        had = known.get((way.device, way.target))
        if had and macs and had not in macs:
            message = f"the node sends packets for {way.target} to {had}, and {min(macs)} has it"
            cure = f"run: ip neigh del {way.target} dev {quote(way.device)}"
            yield fail(Problem("no-neighbour", way.record.guest.title, message, cure))

"""``cgw publish`` and ``cgw unpublish``: change what a guest publishes, and say what it is now."""

from __future__ import annotations

import difflib
import json as json_module
import socket
import sys
from typing import TYPE_CHECKING

from cgw_hooks.agent import client
from cgw_hooks.commands.status import port_members
from cgw_hooks.core.annotation_edit import time_in_words
from cgw_hooks.core.port_change import Wish
from cgw_hooks.core.published_port import ClientLimits, host, span
from cgw_hooks.errors import PortConflict, RegistryError, printable, quoted
from cgw_hooks.host import addresses, log, routes
from cgw_hooks.host.person import person
from cgw_hooks.node import publishing
from cgw_hooks.node.annotation_store import CONFIG, LIVE, open_store
from cgw_hooks.node.hook_answer import who

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgw_hooks.commands.arguments import Namespace
    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.port_change import Outcome
    from cgw_hooks.core.published_port import Address, PublishedPort
    from cgw_hooks.errors import CgwError
    from cgw_hooks.node.annotation_store import Store
    from cgw_hooks.node.publisher import Publisher


def publish(publisher: Publisher, arguments: Namespace) -> int:
    """Publish ports of a guest; return the exit code. Raises ``CgwError``."""
    wish = _wish(arguments)
    dry_run = arguments.dry_run
    done = _with_store(
        publisher,
        arguments,
        lambda store: publishing.publish(
            publisher, store, wish, lambda key: _confirm(publisher, key), dry_run=dry_run
        ),
    )
    if dry_run:
        _print_changes(done)
        return 0
    if done.unconfirmed:
        sys.stderr.write(f"cgw: {printable(str(done.unconfirmed))}; other nodes follow later\n")
    shown = "; ".join(map(str, done.ports))
    _log("publish", done, shown, shown or "nothing")
    if arguments.json:
        _print_json(publisher, done)
        return 0
    picked = set(done.picked)
    for port in done.ports:
        if port not in picked:
            sys.stdout.write(f"{printable(_line(done, port))}\n")
    # One line per picked port, also if the guest has two IP families: it is made to be pasted.
    first = {(port.protocol, port.start): port for port in reversed(done.picked)}
    for port in reversed(first.values()):
        sys.stdout.write(f"{_reached_at(publisher, port)}:{port.start}\n")
        note = _note(done, port)
        if note:
            sys.stderr.write(f"cgw: guest {quoted(done.name)}: {note}\n")
    return 0


def _wish(arguments: Namespace) -> Wish:
    rate, unit = arguments.limit
    limits = ClientLimits(rate, unit, arguments.max_connections)
    return Wish(
        tuple(arguments.ports),
        arguments.source,
        arguments.seconds,
        arguments.guest_address,
        limits if any(limits) else None,
    )


def _confirm(publisher: Publisher, key: GuestKey) -> CgwError | None:
    """Have the registry admit a guest's ports; return why it does not answer.

    Raises ``PortConflict`` if a guest of another node owns one of them.
    """
    if publisher.config.registry is None:
        return None
    try:
        answer = client.ask_registry("claim", str(key))
    except RegistryError as error:
        return error
    if answer.exit_code == PortConflict.exit_code:
        raise PortConflict(*client.parts(answer.line))
    return RegistryError(*client.parts(answer.line)) if answer.exit_code else None


def unpublish(publisher: Publisher, arguments: Namespace) -> int:
    """Withdraw ports of a guest; return the exit code. Raises ``CgwError``."""
    unwanted, dry_run = list(dict.fromkeys(arguments.ports)), arguments.dry_run
    done = _with_store(
        publisher,
        arguments,
        lambda store: publishing.unpublish(publisher, store, unwanted, dry_run=dry_run),
    )
    if dry_run:
        _print_changes(done)
        return 0
    shown = ", ".join(map(str, unwanted))
    _log("unpublish", done, shown, shown or "everything")
    if arguments.json:
        _print_json(publisher, done)
        return 0
    for what in unwanted or ["everything"]:
        sys.stdout.write(f"{printable(done.name)}  {what} unpublished\n")
    return 0


def _log(command: str, done: Outcome, ports: str, shown: str) -> None:
    """Log what a person has asked for, and who it was."""
    fields = {"event": command, "by": command, "guest": done.name, "ports": ports}
    if done.guest:
        fields |= who(done.guest)
    log.notice(f"{command}: guest {quoted(done.name)}: {shown}", user=person(), **fields)


def _with_store(
    publisher: Publisher, arguments: Namespace, act: Callable[[Store], Outcome]
) -> Outcome:
    chosen = {LIVE: arguments.live, CONFIG: arguments.config}
    store = open_store(publisher, arguments.guest, {p for p, is_set in chosen.items() if is_set})
    try:
        return act(store)
    finally:
        store.close()


def _line(done: Outcome, port: PublishedPort) -> str:
    """Return one published port as Docker writes it."""
    listen = f"{_literal(port)}:{span(port.start, port.end)}"
    guest_ports = span(port.to, port.to + port.end - port.start)
    target = f"{host(port.target_address)}:" if port.target_address else "port "
    notes = [f"from {', '.join(map(str, port.sources))}"] if port.sources else []
    notes += [f"one client: {port.limits}"] if port.limits else []
    until = dict(done.guest.limits).get(port.claim) if done.guest else None
    notes += [f"until {time_in_words(until)}"] if until is not None else []
    notes += [note] if (note := _note(done, port)) else []
    more = f"  ({'; '.join(notes)})" if notes else ""
    return f"{done.name}  {listen} -> {target}{guest_ports}/{port.protocol}{more}"


def _note(done: Outcome, port: PublishedPort) -> str:
    """Return when the port opens; empty if it is open."""
    if not done.is_running:
        return "opens at its next start"
    if port.target_address is None:
        is_leased = done.guest and any(interface.network for interface in done.guest.leased)
        when = "with its first lease" if is_leased else "when one is seen"
        return f"the guest has no address yet: opens {when}"
    return ""


def _literal(port: PublishedPort) -> str:
    address = port.listen_address
    return f"[{address}]" if port.family == 6 else str(address)  # noqa: PLR2004


def _reached_at(publisher: Publisher, port: PublishedPort) -> str:
    """Return the host to connect to: the most useful one to paste.

    It is the listening address, else the uplink address of the config, else the node's address on
    the way to its default gateway, else another address of the node that is not on the guest's
    link, else the node's name. (0.0.0.0 would lead to the loopback address, which is never
    published.)
    """
    if not port.listen_address.is_unspecified:
        return _literal(port)
    for address in publisher.config.uplink.addresses:
        if address.version == port.family:
            return host(address)
    found = addresses.outward(port.family) or _outer_address(publisher, port)
    return host(found) if found else socket.gethostname()


def _outer_address(publisher: Publisher, port: PublishedPort) -> Address | None:
    route = routes.route_to(port.target_address) if port.target_address else None
    guest_devices = {route.device if route else ""}
    guest_devices |= {network.bridge for network in publisher.config.guest_networks}
    for address, device in addresses.devices(port.family).items():
        if device not in guest_devices and not address.is_link_local:
            return address
    return None


def _print_json(publisher: Publisher, done: Outcome) -> None:
    guest = done.guest
    shown = {
        "guest": done.name,
        "running": done.is_running,
        "published": [_port_json(publisher, guest, port) for port in done.ports if guest],
    }
    sys.stdout.write(json_module.dumps(shown, indent=2) + "\n")


def _port_json(publisher: Publisher, guest: Guest | None, port: PublishedPort) -> dict[str, object]:
    members = port_members(guest, port) if guest else {}
    return {**members, "host": _reached_at(publisher, port)}


def _print_changes(done: Outcome) -> None:
    for line in _changes(done):
        sys.stdout.write(f"{printable(line)}\n")
    sys.stdout.write(done.ruleset)


def _changes(done: Outcome) -> Iterator[str]:
    """Yield a unified diff of each annotation that would change."""
    for place, before, after in done.edits:
        old, new = ((text or "").splitlines() for text in (before, after))
        title = f"{done.name} {place}"
        yield from difflib.unified_diff(old, new, f"{title} (now)", f"{title} (then)", lineterm="")

"""Deletes tracked flows that must not continue: the last step of publishing and withdrawing.

The kernel walks its whole table for this, so the caller must not hold the node's lock. This may
be repeated.
"""

from __future__ import annotations

from cgw_hooks.core import flow
from cgw_hooks.errors import RulesetError
from cgw_hooks.host import conntrack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgw_hooks.core.flow import Flow
    from cgw_hooks.core.published_port import Address, PublishedPort


def delete_missing(ports: Iterable[PublishedPort]) -> None:
    """Delete the flows that began before the ports were published.

    Raises ``RulesetError``.
    """
    from cgw_hooks.host import listeners  # not for a guest that stops

    local: dict[Address, bool] = {}

    def is_local(address: Address) -> bool:
        if address not in local:
            local[address] = listeners.is_local(address)
        return local[address]

    def misses(found: Flow, port: PublishedPort) -> bool:
        return flow.misses(found, port, is_local)

    groups: dict[tuple[str, int], list[PublishedPort]] = {}
    for port in ports:
        if port.target_address:
            groups.setdefault((port.protocol, port.family), []).append(port)
    for (protocol, family), group in groups.items():
        _delete(conntrack.Selection(protocol, family, _ranges(group)), group, misses)


def delete_translated(ports: Iterable[PublishedPort], *, connections_end: bool) -> None:
    """Delete the flows that these published ports have translated. Raises ``RulesetError``.

    With ``connections_end``, established TCP connections are deleted as well. A TCP flow that
    the guest never answered is always deleted: its client tries again, and must not reach the
    former target.
    """
    groups: dict[tuple[str, Address], list[PublishedPort]] = {}
    for port in ports:
        if port.target_address:
            groups.setdefault((port.protocol, port.target_address), []).append(port)
    for (protocol, address), group in groups.items():
        selection = conntrack.Selection(
            protocol,
            address.version,
            _ranges(group),
            answered_by=address,
            unanswered=protocol == "tcp" and not connections_end,
        )
        _delete(selection, group, flow.goes_to)


def delete_steered(ports: Iterable[PublishedPort]) -> None:
    """Delete the flows to guests that have left this node, which was not their entry node.

    If such a guest came back, the kernel would compare its connections with their former state.
    Raises ``RulesetError``.
    """
    groups: dict[tuple[str, Address], list[PublishedPort]] = {}
    for port in ports:
        if port.target_address:
            direct = port._replace(
                listen_address=port.target_address,
                start=port.to,
                end=port.to + port.end - port.start,
            )
            groups.setdefault((port.protocol, port.target_address), []).append(direct)
    for (protocol, address), group in groups.items():
        selection = conntrack.Selection(
            protocol, address.version, _ranges(group), answered_by=address
        )
        _delete(selection, group, flow.goes_to)


def _delete(
    selection: conntrack.Selection,
    ports: list[PublishedPort],
    condition: Callable[[Flow, PublishedPort], bool],
) -> None:
    finder = flow.PortFinder(ports)

    def matches(found: Flow) -> bool:
        port = finder.port_of(found)
        return port is not None and condition(found, port)

    try:
        conntrack.delete_flows(selection, matches)
    except OSError as error:
        raise RulesetError(
            "conntrack", f"stale {selection.protocol} flows cannot be deleted: {error}"
        ) from error


def _ranges(ports: Iterable[PublishedPort]) -> tuple[range, ...]:
    return tuple(range(port.start, port.end + 1) for port in ports)

"""Tracked flows that must not go on: the last step of publishing and of withdrawing.

Outside the node's lock, since the kernel walks its whole table. May be repeated.
"""

from __future__ import annotations

from cgw_hooks.core import flow
from cgw_hooks.errors import RulesetError
from cgw_hooks.host import conntrack, listeners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgw_hooks.core.flow import Flow
    from cgw_hooks.core.published_port import PublishedPort


def delete_missing(ports: Iterable[PublishedPort]) -> None:
    """Delete the flows of clients that were sending before the ports were published.

    Raises ``RulesetError``.
    """

    def misses(found: Flow, port: PublishedPort) -> bool:
        return flow.misses(found, port, listeners.is_local)

    _delete(ports, misses)


def delete_translated(ports: Iterable[PublishedPort], *, connections_end: bool) -> None:
    """Delete the flows that go to the guest as these ports said. Raises ``RulesetError``.

    ``connections_end``: established TCP connections as well. One that the guest never answered
    is always over: its client asks again, and must not be sent to where nobody is.
    """
    _delete(ports, flow.goes_to, connections_end=connections_end)


def _delete(
    ports: Iterable[PublishedPort],
    condition: Callable[[Flow, PublishedPort], bool],
    *,
    connections_end: bool = True,
) -> None:
    """Ask the kernel once to a family and protocol."""
    groups: dict[tuple[int, str], list[PublishedPort]] = {}
    for port in ports:
        if port.target_address:
            groups.setdefault((port.family, port.protocol), []).append(port)
    for (family, protocol), group in groups.items():
        numbers = {number for port in group for number, _ in port.pairs()}

        def matches(found: Flow, group: list[PublishedPort] = group) -> bool:
            port = flow.port_of(found, group)
            return port is not None and condition(found, port)

        unanswered = protocol == "tcp" and not connections_end
        try:
            conntrack.delete_flows(family, protocol, numbers, matches, unanswered=unanswered)
        except OSError as error:
            raise RulesetError(
                "conntrack", f"stale {protocol} flows cannot be deleted: {error}"
            ) from error

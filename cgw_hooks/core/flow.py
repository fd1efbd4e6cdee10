"""Decides which tracked flows must be deleted when a published port comes or goes.

NAT rules see only the first packet of a flow. A UDP or SCTP client that goes on
sending from one port keeps its first NAT decision (translated or not) until the
flow is deleted.
"""

from __future__ import annotations

from bisect import bisect_right

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.published_port import ANY_ADDRESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgw_hooks.core.published_port import Address, PublishedPort


class Flow(NamedTuple):
    """One tracked flow: the address and port that its client sends to, and those that answer."""

    protocol: str
    listen_address: Address
    listen_port: int
    answering_address: Address
    answering_port: int
    #: Whether an answer was seen; for TCP this means that a connection was set up.
    answered: bool = True


class PortFinder:
    """Finds the published port that a flow matches; the cost does not grow with their number."""

    def __init__(self, ports: Iterable[PublishedPort]) -> None:
        self._ports: dict[tuple[str, Address], list[PublishedPort]] = {}
        for port in sorted(ports, key=_start):
            self._ports.setdefault((port.protocol, port.listen_address), []).append(port)
        #: For each published port, the highest listening port of this one and of all before.
        self._reach: dict[tuple[str, Address], list[int]] = {}
        for key, group in self._ports.items():
            reach = self._reach[key] = [0]
            for port in group:
                reach.append(max(reach[-1], port.end))

    def port_of(self, flow: Flow) -> PublishedPort | None:
        """Return the published port that a new packet of this flow would match."""
        for address in (flow.listen_address, ANY_ADDRESS[flow.listen_address.version]):
            group = self._ports.get((flow.protocol, address), [])
            count = bisect_right(group, flow.listen_port, key=_start)
            # The loop takes more than one step only if ranges overlap.
            while count and self._reach[flow.protocol, address][count] >= flow.listen_port:
                count -= 1
                if group[count].end >= flow.listen_port:
                    return group[count]
        return None


def goes_to(flow: Flow, port: PublishedPort) -> bool:
    """Whether the flow is translated to the target of this published port."""
    return (
        flow.answering_address == port.target_address
        and flow.answering_port == port.to + flow.listen_port - port.start
    )


def misses(flow: Flow, port: PublishedPort, is_local: Callable[[Address], bool]) -> bool:
    """Whether the flow matches this published port but goes to another target.

    A flow that this node only forwards to another host, to the same port number, is not such a
    flow: its destination address is not local.
    """
    return not goes_to(flow, port) and is_local(flow.listen_address)


def _start(port: PublishedPort) -> int:
    return port.start

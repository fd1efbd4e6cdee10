"""Which tracked flows a published port must not go on with.

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
    """One tracked flow: where its client sends to, and who answers."""

    protocol: str
    listen_address: Address
    listen_port: int
    answering_address: Address
    answering_port: int
    #: Whether a packet came back: of TCP, whether there is a connection.
    answered: bool = True


class PortFinder:
    """Finds the published port that a flow is meant for, at the same cost among one or many."""

    def __init__(self, ports: Iterable[PublishedPort]) -> None:
        self._ports: dict[tuple[str, Address], list[PublishedPort]] = {}
        for port in sorted(ports, key=_start):
            self._ports.setdefault((port.protocol, port.listen_address), []).append(port)
        #: For each port, the highest listening port of it and of all before it.
        self._reach: dict[tuple[str, Address], list[int]] = {}
        for key, group in self._ports.items():
            reach = self._reach[key] = [0]
            for port in group:
                reach.append(max(reach[-1], port.end))

    def port_of(self, flow: Flow) -> PublishedPort | None:
        """Return the published port that a new packet of this flow would be meant for."""
        for address in (flow.listen_address, ANY_ADDRESS[flow.listen_address.version]):
            group = self._ports.get((flow.protocol, address), [])
            count = bisect_right(group, flow.listen_port, key=_start)
            # More than one step only where ranges overlap.
            while count and self._reach[flow.protocol, address][count] >= flow.listen_port:
                count -= 1
                if group[count].end >= flow.listen_port:
                    return group[count]
        return None


def goes_to(flow: Flow, port: PublishedPort) -> bool:
    """Whether the flow is translated as this port says."""
    return (
        flow.answering_address == port.target_address
        and flow.answering_port == port.to + flow.listen_port - port.start
    )


def misses(flow: Flow, port: PublishedPort, is_local: Callable[[Address], bool]) -> bool:
    """Whether the flow is meant for this port and goes elsewhere.

    A flow through this node to somebody else's port of the same number does not
    miss it: its address is not local.
    """
    return not goes_to(flow, port) and is_local(flow.listen_address)


def _start(port: PublishedPort) -> int:
    return port.start

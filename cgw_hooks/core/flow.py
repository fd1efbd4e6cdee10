"""Which tracked flows a published port must not go on with.

NAT rules see only the first packet of a flow. A UDP or SCTP client that goes on
sending from one port keeps the translation, or the want of one, that its flow
began with, until the flow is deleted.
"""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple

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


def port_of(flow: Flow, ports: Iterable[PublishedPort]) -> PublishedPort | None:
    """The published port that a new packet of this flow would be meant for."""
    for port in ports:
        if (
            port.protocol == flow.protocol
            and port.family == flow.listen_address.version
            and port.start <= flow.listen_port <= port.end
            and (port.listen_address.is_unspecified or port.listen_address == flow.listen_address)
        ):
            return port
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
